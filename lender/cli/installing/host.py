"""This machine, as far as installing goes: its service manager, who we are, where programs are."""

import math
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import psutil

from lender.cli.exits import CommandError, Exit
from lender.cli.installing import launchd, systemd
from lender.cli.installing.plan import Target, draft, kept
from lender.service.places import configuration_home

_PAGE = "docs/installing.md says what a service of lender needs"
_NO_SYSTEMD = (
    "systemd does not run here, so there is nothing to install into: start lenderd by the service "
    f"manager that there is; {_PAGE}"
)
_WSL = (
    "systemd does not run in this WSL: put `systemd=true` below [boot] in /etc/wsl.conf, then "
    "`wsl --shutdown` in Windows, and run this again"
)
_NO_USER_MANAGER = (
    "no systemd of yours runs here ($XDG_RUNTIME_DIR has none): log in as this user by a terminal, "
    "ssh or `machinectl shell`, not by su or sudo; or, for the whole machine: "
    "sudo lender install --system"
)
_HIDDEN = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= takes from a system service (systemd.exec(5))."""

_PROGRAMS = ("lender", "lenderd", "lender-broker")
_CONTROL_S = 20.0


def manager(root: Path = Path("/"), platform: str = sys.platform) -> Literal["systemd", "launchd"]:
    """Return who manages services here.

    Args:
        root: of the file system.
        platform: as `sys.platform` has it.

    Raises:
        CommandError: nobody whom we know.
    """
    if platform == "darwin":
        return "launchd"
    if not (root / "run/systemd/system").is_dir():  # sd_booted(3)
        version = root / "proc/version"
        in_wsl = version.is_file() and "microsoft" in version.read_text().lower()
        raise CommandError(Exit.FAILED, _WSL if in_wsl else _NO_SYSTEMD)
    return "systemd"


def check_who(target: Target, uid: int, environment: Mapping[str, str]) -> None:
    """See that this user can have such a service.

    Args:
        target: what, and whose.
        uid: of this user.
        environment: of this process.

    Raises:
        CommandError: not this user, or not from here; says how.
    """
    if target.system and uid != 0:
        verb = f"lender install --system (or {Path(sys.argv[0]).absolute()})"
        raise CommandError(
            Exit.NOT_PERMITTED, f"only root makes services of a machine: sudo {verb}"
        )
    if not target.system and uid == 0:
        raise CommandError(
            Exit.USAGE,
            "lenderd runs no work as root: without sudo it becomes a service of your own, with "
            "--system one of the machine",
        )
    if not target.system and sys.platform != "darwin":
        folder = environment.get("XDG_RUNTIME_DIR", "")
        if not folder or not Path(folder, "systemd/private").exists():
            raise CommandError(Exit.FAILED, _NO_USER_MANAGER)


def programs(typed: str = sys.argv[0]) -> dict[str, str]:
    """Return where the programs are: beside the command that was typed, or its Python, or on PATH.

    Not what links lead to: those stay the same when a new version comes.

    Raises:
        CommandError: one is missing.
    """
    own = typed if "/" in typed else shutil.which(typed)
    places = [str(Path(one).absolute().parent) for one in (own, sys.executable) if one]
    found: dict[str, str] = {}
    for name in _PROGRAMS:
        path = shutil.which(name, path=os.pathsep.join(places)) or shutil.which(name)
        if path is None:
            raise CommandError(Exit.FAILED, f"{name} is not installed beside {typed}, nor on PATH")
        found[name] = str(Path(path).absolute())
    return found


def check_reach(path: str) -> None:
    """See that a system service's account can start a program, and nobody else replace it.

    Raises:
        CommandError: it can't, or somebody can.
    """
    real = Path(path).resolve()
    mend = "install lender for all users first: the .deb, or a virtual environment in /opt/lender"
    for one in (Path(path), real):
        if str(one).startswith(_HIDDEN):
            text = f"{one} lies in somebody's home, which a system service does not see; {mend}"
            raise CommandError(Exit.FAILED, text)
    for one in (real, *real.parents):
        found = one.stat()
        if not found.st_mode & stat.S_IXOTH:
            raise CommandError(Exit.FAILED, f"the service's account can't get to {path}; {mend}")
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (found.st_mode & stat.S_IWOTH and not sticky):
            text = f"others than root can change {one}, which the service would run; {mend}"
            raise CommandError(Exit.FAILED, text)


def check_kept(target: Target, paths: Iterable[str], root: Path = Path("/")) -> None:
    """See that the unit, and what it starts, stay where they are put.

    Args:
        target: what, and whose.
        paths: of its programs.
        root: of the file system.

    Raises:
        CommandError: Nix writes the machine's units, or would collect a program; says what to do.
    """
    page = "docs/nix.md has the modules"
    if target.system and (root / "etc/NIXOS").exists():
        text = f"the services of a NixOS machine stand in its configuration: {page}"
        raise CommandError(Exit.FAILED, text)
    if stored := [path for path in paths if path.startswith("/nix/store/")]:
        text = (
            f"{stored[0]} goes with the next garbage collection: install lender in a profile "
            f"(nix profile install) and run that one; {page}"
        )
        raise CommandError(Exit.FAILED, text)


def systemd_service(target: Target) -> systemd.Found:
    """Look at a service of systemd."""
    folder = systemd.FOLDERS[target.system]
    if not target.system:
        folder = Path(configuration_home(), folder)
    user = pwd.getpwuid(os.getuid()).pw_name
    state = _says(target, "is-active")
    return systemd.Found(
        folder=folder,
        read=read,
        changes=lambda place: any(place.glob("*.conf")),
        enabled=_says(target, "is-enabled") == "enabled",
        active=state in ("active", "reloading"),
        changing=state in ("activating", "deactivating"),
        outdated=_came_after(
            _started_s(target), *(folder / name for name in systemd.sources(target))
        ),
        accounts=not target.system or _is_account(systemd.RUNS_AS[target.name]),
        lingers=Path("/var/lib/systemd/linger", user).exists(),
    )


def check_account(target: Target) -> None:
    """See that a daemon of a Mac has its account.

    Raises:
        CommandError: it is missing.
    """
    if target.system and not _is_account(launchd.ACCOUNT):
        text = (
            f"there is no account {launchd.ACCOUNT} for lenderd to run as: sudo sysadminctl "
            f"-addUser {launchd.ACCOUNT} -shell /usr/bin/false -home /var/empty; {_PAGE}"
        )
        raise CommandError(Exit.FAILED, text)


def launchd_service(target: Target, source: str) -> launchd.Found:
    """Look at a service of launchd."""
    folder = launchd.SYSTEM_FOLDER if target.system else Path.home() / launchd.USER_FOLDER
    file, uid = folder / Path(source).name, os.getuid()
    asked = _asked("launchctl", "print", f"{launchd.domain(target, uid)}/{file.stem}")
    return launchd.Found(
        file,
        read(file),
        loaded=asked.returncode == 0,
        uid=uid,
        outdated=_came_after(_runs_since_s(asked.stdout), file),
        left=frozenset(path for path in (draft(file), kept(file)) if path.exists()),
    )


def read(path: Path) -> str | None:
    """Return a file's text; None where there is none.

    Raises:
        CommandError: it can't be read.
    """
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CommandError(Exit.FAILED, f"can't read {path}: {error}") from error


def _says(target: Target, *question: str) -> str:
    scope = () if target.system else ("--user",)
    return _asked("systemctl", *scope, *question, f"{target.name}.service").stdout.strip()


def _started_s(target: Target) -> float:
    """When systemd started it, in seconds since 1970; in the future where it does not run."""
    asked = ("show", "--value", "--timestamp=unix", "--property=ExecMainStartTimestamp")
    started = re.fullmatch(r"@([0-9]+)", _says(target, *asked))
    return math.inf if started is None else int(started[1]) + 1


def _runs_since_s(told: str) -> float:
    """When a service of launchd was started, by what `launchctl print` tells of it; else 0."""
    pid = re.search(r"^\s*pid = ([0-9]+)$", told, re.MULTILINE)
    try:
        return 0 if pid is None else psutil.Process(int(pid[1])).create_time() + 1
    except psutil.NoSuchProcess:
        return 0


def _came_after(since_s: float, *files: Path) -> bool:
    """Whether this version, or one of some files, came later: ctime is set back by no unpacking."""
    there = [Path(__file__), *(file for file in files if file.exists())]
    return any(file.stat().st_ctime > since_s for file in there)


def _asked(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_CONTROL_S, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise CommandError(Exit.FAILED, f"{command[0]} gives no answer: {error}") from error


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True

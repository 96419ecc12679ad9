"""What to do for a service of systemd, given what was found. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lender.cli.installing import templates
from lender.cli.installing.plan import Plan, Remove, Run, Step, Target, Write, draft, kept

FOLDERS = {True: Path("/etc/systemd/system"), False: Path("systemd/user")}
"""Where units are written: the machine's, and the user's below their configuration."""
PACKAGED = {
    True: (Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system")),
    False: (Path("/usr/local/lib/systemd/user"), Path("/usr/lib/systemd/user")),
}
"""Where packages put theirs (systemd.unit(5), "Unit File Load Path")."""
ACCOUNTS = "sysusers.d/lender.conf"
RUNS_AS = {"lenderd": "lender", "lender-broker": "lender-broker"}
"""Whom system units run as."""

Reader = Callable[[Path], str | None]
"""Returns a file's text; None where there is none."""
Lister = Callable[[Path], bool]
"""Tells whether a folder holds any drop-in (systemd.unit(5))."""


@dataclass(frozen=True, slots=True)
class Found:
    """The service as it is.

    Attributes:
        folder: where units of this kind are written.
        read: what is on the disk.
        changes: where somebody has drop-ins.
        enabled: it starts by itself.
        active: it runs now.
        accounts: those that its unit names are there.
        lingers: this user's services run while nobody is logged in.
        changing: it is being started, perhaps once more since it failed before, or stopped.
        outdated: what runs was started before its unit, or the version that is installed, came.
    """

    folder: Path
    read: Reader
    changes: Lister
    enabled: bool
    active: bool
    accounts: bool = True
    lingers: bool = True
    changing: bool = False
    outdated: bool = False


def sources(target: Target) -> dict[str, str]:
    """Return which units belong to a target: the name of each, and where it lies in `systemd/`."""
    kind = "system" if target.system else "user"
    found = {f"{target.name}.service": f"{kind}/{target.name}.service"}
    if target.name == "lenderd":
        found["lender.slice"] = "lender.slice"
    return found


def install(
    target: Target, units: Mapping[str, str], accounts: Path, found: Found, *, replace: bool
) -> Plan:
    """Return what is to be done so that the service runs, now and later.

    Args:
        target: what, and whose.
        units: name -> text, with the programs' paths.
        accounts: file of sysusers.d(5) that names whom system units run as.
        found: how it is.
        replace: a file that was edited gives way, and is kept.
    """
    steps: list[Step] = []
    notes: list[str] = []
    for name, text in units.items():
        step = _written(found, target, name, text, replace=replace)
        if isinstance(step, str):
            notes.append(step)
        elif step is not None:
            steps.append(step)
    changed = bool(steps)
    control = _control(target)
    service = f"{target.name}.service"
    if changed or found.outdated or not found.active:
        # A package does so for the machine's manager, and not for those of users.
        steps.append(Run((*control, "daemon-reload")))
    if target.system and not found.accounts:
        steps.insert(0, Run(("systemd-sysusers", str(accounts))))
    if not found.enabled:
        steps.append(Run((*control, "enable", service)))
    if not found.active:
        # What failed too often before is to be tried again; of what starts the end is waited for.
        steps.append(Run((*control, "reset-failed", service), may_fail=True))
        steps.append(Run((*control, "start", service)))
    elif changed or found.outdated:
        steps.append(Run((*control, "restart", service)))
    if not target.system and target.name != "lender-agent" and not found.lingers:
        notes.append(
            "it runs while you are logged in; for always, also after a reboot: "
            "loginctl enable-linger"
        )
    return Plan(tuple(steps), tuple(notes))


def uninstall(target: Target, found: Found) -> Plan:
    """Return what is to be done to leave nothing of the service; what is the owner's stays."""
    steps: list[Step] = []
    notes: list[str] = []
    control, service = _control(target), f"{target.name}.service"
    if found.active or found.changing or found.enabled:
        steps.append(Run((*control, "disable", "--now", service)))
    removed, stays = _removed(target, found)
    steps += removed
    notes += stays
    if any(found.read(folder / service) is not None for folder in PACKAGED[target.system]):
        notes.append(f"{service} of a package stays, switched off")
    if removed:
        steps.append(Run((*control, "daemon-reload")))
    if steps:
        steps.append(Run((*control, "reset-failed", service), may_fail=True))
        notes += _for_its_sake(target, found, ours=bool(removed))
    return Plan(tuple(steps), tuple(notes))


def _for_its_sake(target: Target, found: Found, *, ours: bool) -> list[str]:
    """Return what came with the service, may be another's as well, and so stays."""
    if not target.system:
        words = "your services go on while you are logged out; where none needs that: loginctl"
        wanted = found.lingers and target.name != "lender-agent"  # which is of a session's
        return [f"{words} disable-linger"] if wanted else []
    account = RUNS_AS[target.name]
    return [f"the account {account} stays: files may be its"] if ours and found.accounts else []


def _removed(target: Target, found: Found) -> tuple[list[Remove], list[str]]:
    """Return the steps for its files, and what is to be known of those that stay."""
    steps: list[Remove] = []
    notes: list[str] = []
    for name in sources(target):
        path = found.folder / name
        if (there := found.read(path)) is not None:
            known = templates.known(there)
            if known == "foreign":
                notes.append(f"{path} was not written by us: it stays")
            else:
                steps.append(Remove(path, kept(path) if known == "edited" else None))
        if found.read(draft(path)) is not None:
            steps.append(Remove(draft(path)))
        if found.read(kept(path)) is not None:
            notes.append(f"{kept(path)} stays: it was there before, or you changed it")
        if found.changes(path.with_name(f"{name}.d")):
            notes.append(f"your changes in {path}.d stay")
    return steps, notes


def _written(
    found: Found, target: Target, name: str, text: str, *, replace: bool
) -> Write | str | None:
    """Return the step for one file, or why there is none; None: it is as it should be."""
    path, wanted = found.folder / name, templates.marked(text)
    there = found.read(path)
    if there == wanted:
        return None
    if there is None:
        packaged = (found.read(folder / name) for folder in PACKAGED[target.system])
        return None if text in packaged else Write(path, wanted)
    if templates.known(there) == "ours":
        return Write(path, wanted)
    if replace:
        return Write(path, wanted, kept(path))
    return (
        f"{path} is not as we wrote it, and is left alone. Changes belong into a drop-in "
        f"({' '.join(_control(target))} edit {name}); then run this again with --replace"
    )


def _control(target: Target) -> tuple[str, ...]:
    return ("systemctl",) if target.system else ("systemctl", "--user")

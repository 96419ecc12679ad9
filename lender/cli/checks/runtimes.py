"""Whether a sandbox can be made here, and if not, what keeps it away."""

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lender.cli.checks.check import Check
from lender.cli.owner import Told

_BWRAP_S = 5.0
_WASMTIME_MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")


def runtimes(told: Told) -> Iterator[Check]:
    """What lenderd's own test has shown, or what can be seen without it."""
    told_of: dict[str, dict[str, Any]] = told.reply.get("runtimes") or {}
    if told_of:
        found = [
            Check(f"runtime.{name}", "ok", f"{name} works")
            if one.get("available")
            else Check(
                f"runtime.{name}",
                "warning",
                f"no {name}: {one.get('reason')}",
                str(one.get("mend") or ""),
            )
            for name, one in told_of.items()
        ]
    else:
        found = [_bubblewrap(), _wasmtime()]
    yield from found
    if all(check.level != "ok" for check in found):
        yield Check("runtimes", "blocker", "no sandbox works, so nothing can run", "see above")


def _bubblewrap() -> Check:
    name = "runtime.process"
    program = shutil.which("bwrap")
    if program is None:
        return Check(name, "warning", "no process: no bubblewrap", "install package bubblewrap")
    command = [program, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_BWRAP_S, check=False)
    except subprocess.TimeoutExpired:
        return Check(name, "warning", f"no process: bwrap hung for {_BWRAP_S:g} s")
    if done.returncode == 0:
        return Check(name, "ok", "process works: bubblewrap makes a sandbox for this user")
    reason = done.stderr.decode(errors="replace").strip().splitlines()
    return Check(
        name,
        "warning",
        f"no process: {reason[-1] if reason else f'bwrap ended with {done.returncode}'}",
        _namespaces_mend(Path("/proc/sys")),
    )


def _namespaces_mend(sysctls: Path) -> str:
    """What keeps an ordinary user from a namespace of their own: the one setting that does."""
    if _sysctl(sysctls, "kernel/unprivileged_userns_clone") == "0":
        return "sysctl -w kernel.unprivileged_userns_clone=1, and in /etc/sysctl.d to keep it"
    if _sysctl(sysctls, "user/max_user_namespaces") == "0":
        return "sysctl -w user.max_user_namespaces=15000, and in /etc/sysctl.d to keep it"
    if _sysctl(sysctls, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: install the profile bwrap-userns-restrict "
            "(package apparmor-profiles), or sysctl -w "
            "kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return "run inside a container or a virtual machine that allows user namespaces"


def _sysctl(sysctls: Path, name: str) -> str:
    try:
        return (sysctls / name).read_text().strip()
    except OSError:
        return ""


def _wasmtime() -> Check:
    name = "runtime.wasm"
    if importlib.util.find_spec("wasmtime") is not None:
        return Check(name, "ok", "wasm: wasmtime is installed")
    if platform.machine() not in _WASMTIME_MACHINES:
        text = f"no wasm: wasmtime has no wheel for {platform.machine()}"
        return Check(name, "warning", text, "use a 64-bit operating system")
    return Check(name, "warning", "no wasm: wasmtime is not installed", "install lender again")


def python() -> Iterator[Check]:
    """Which interpreter runs all this."""
    yield Check("python", "ok", f"Python {platform.python_version()} at {sys.executable}")

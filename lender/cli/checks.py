"""The checks of `lender doctor`: each looks, changes nothing, and knows a mend."""

import encodings.idna  # noqa: F401  # found by name later, when root has become the owner
import importlib.util
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lender.cli.owner import Told, tell
from lender.daemon.consent_files import load_consent, read_intent
from lender.daemon.receipts import ReceiptLog
from lender.daemon.state import StateFolder

Level = Literal["ok", "info", "warning", "blocker"]

_NATS_PORT = 4222
_CONNECT_S = 2.0
_BWRAP_S = 5.0
_WASMTIME_MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: stable, for scripts.
        level: a blocker keeps this machine from lending.
        text: what was seen.
        mend: what to do; empty where nothing is.
    """

    name: str
    level: Level
    text: str
    mend: str = ""


def examine(state: StateFolder) -> list[Check]:
    """Run all checks, a few seconds at most. A check that fails itself is a warning."""
    told = tell(state, "status")
    parts: list[Callable[[], Iterator[Check]]] = [
        lambda: _state_folder(state),
        lambda: _consent(state),
        lambda: _receipts(state),
        lambda: _daemon(told),
        lambda: _nats(told),
        lambda: _runtimes(told),
        _python,
        lambda: _clock(state),
        _kernel,
    ]
    found: list[Check] = []
    for part in parts:
        try:
            found += part()
        except (OSError, ValueError) as error:
            found.append(Check("doctor", "warning", f"a check could not be made: {error}"))
    return found


def _state_folder(state: StateFolder) -> Iterator[Check]:
    if not state.path.exists():
        mend = "lender grant makes it; name another one with --state"
        yield Check("state", "blocker", f"no lender at {state.path}", mend)
        return
    status = state.path.stat()
    if status.st_mode & 0o022:
        yield Check(
            "state.mode", "blocker", f"others can write {state.path}", f"chmod 711 {state.path}"
        )
    private = (state.grants, state.tombstones, state.attempts, state.scratch, state.identity)
    exposed = [p for p in private if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    for path in exposed:
        yield Check("state.mode", "warning", f"others can reach {path}", f"chmod go= {path}")
    strange = [p for p in private if p.exists() and p.stat().st_uid not in (0, status.st_uid)]
    for path in strange:
        mend = f"chown {status.st_uid} {path}"
        yield Check("state.owner", "warning", f"{path} belongs to someone else", mend)
    if not exposed and not strange and not status.st_mode & 0o022:
        yield Check("state", "ok", f"{state.path} is private to uid {status.st_uid}")


def _consent(state: StateFolder) -> Iterator[Check]:
    reading = load_consent(state)
    for fault in reading.ignored:
        mend = "grant again, or mend the file"
        yield Check("consent.ignored", "warning", f"{fault.path} {fault.reason}", mend)
    if reading.ban:
        yield Check(
            "consent.ban", "blocker", f"every grant counts as withdrawn: {reading.ban}",
            f"look into {state.tombstones}",
        )  # fmt: skip
    held = len(reading.consent.valid(time.time()))
    if held:
        yield Check("consent", "ok", f"grants that hold: {held}")
    else:
        yield Check("consent", "blocker", "nothing is granted, so nothing runs", "lender grant")
    if read_intent(state).paused:
        yield Check("intent", "info", "lending is paused", "lender resume")


def _receipts(state: StateFolder) -> Iterator[Check]:
    findings = ReceiptLog(state.receipts).verify()
    if findings:
        text = f"the log of what ran was changed: {findings[0].text}"
        yield Check("receipts", "warning", text, "lender log --verify")
    else:
        yield Check("receipts", "ok", "the log of what ran is as it was written")


def _daemon(told: Told) -> Iterator[Check]:
    if told.outcome == "answered":
        yield Check("daemon", "ok", f"lenderd answers: {told.reply.get('phase')}")
    elif told.outcome == "absent":
        yield Check("daemon", "blocker", f"lenderd does not run ({told.reason})", "start lenderd")
    else:
        mend = "restart lenderd; its log says why"
        yield Check("daemon", "blocker", f"lenderd gives no answer ({told.reason})", mend)


def _nats(told: Told) -> Iterator[Check]:
    url = str(told.reply.get("url") or "").split(",")[0]
    if not url:
        return
    parts = urlsplit(url if "//" in url else f"//{url}")
    place = (parts.hostname or "127.0.0.1", parts.port or _NATS_PORT)
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except OSError as error:
        text = f"no NATS server at {place[0]}:{place[1]} ({error.strerror or error})"
        yield Check("nats", "blocker", text, "ask its operator, or mend lenderd's setting `url`")
        return
    if told.reply.get("connected"):
        yield Check("nats", "ok", f"connected to {url}")
    else:
        text = f"{url} can be reached, but lenderd is not connected to it"
        yield Check("nats", "blocker", text, "lenderd's log says what the server refuses")


def _runtimes(told: Told) -> Iterator[Check]:
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
        "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, or an "
        "AppArmor profile for bwrap)",
    )


def _wasmtime() -> Check:
    name = "runtime.wasm"
    if importlib.util.find_spec("wasmtime") is not None:
        return Check(name, "ok", "wasm: wasmtime is installed")
    if platform.machine() not in _WASMTIME_MACHINES:
        text = f"no wasm: wasmtime has no wheel for {platform.machine()}"
        return Check(name, "warning", text, "use a 64-bit operating system")
    return Check(name, "warning", "no wasm: wasmtime is not installed", "install lender again")


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"Python {platform.python_version()} at {sys.executable}")


def _clock(state: StateFolder) -> Iterator[Check]:
    """Grants end by this clock: one that was set back would prolong them."""
    now = time.time()
    known = [p.stat().st_mtime for p in (state.intent, state.receipts, state.grants) if p.exists()]
    code = Path(__file__).stat().st_mtime
    if any(then > now + 60 for then in (*known, code)):
        mend = "set the clock; switch on time synchronisation"
        yield Check("clock", "blocker", "the clock is behind what was written here before", mend)
    else:
        yield Check("clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}")


def _kernel() -> Iterator[Check]:
    """What later comfort depends on; nothing of it is needed to lend."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists():
        yield Check("cgroup", "info", "no cgroup v2: limits are kept without it")
    elif "memory" not in controllers.read_text().split():
        mend = "on a Raspberry Pi: cgroup_enable=memory in cmdline.txt"
        yield Check("cgroup", "info", "cgroup v2 without its memory controller", mend)
    else:
        yield Check("cgroup", "ok", "cgroup v2 with memory")
    if os.access("/proc/pressure/cpu", os.R_OK):
        yield Check("pressure", "ok", "the kernel reports pressure")
    else:
        yield Check("pressure", "info", "the kernel reports no pressure", "psi=1 on its cmdline")

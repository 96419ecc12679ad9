"""Which runtimes hold on this machine: each is tried for real before it is ever offered.

A wall that can't be shown to stand is not there: the runtime is then not offered, with the reason
and what to do about it. All are tried at once, in well under two seconds.
"""

import asyncio
import contextlib
import json
import os
import pickle
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lender.sandbox import probe
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import RUNTIMES, Limits, Runtime, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root
from lender.sandbox.walls import enter, landlock, seccomp

_LIMITS = Limits(
    cpu=1,
    memory_bytes=256 << 20,
    time_s=10.0,  # it takes a fraction of a second, but a busy owner comes first
    output_bytes=1 << 16,
    scratch_bytes=1 << 20,
    processes=16,
)
_ENVIRONMENT = ("HOME", "LENDER_JOB", "LENDER_TASK", "LENDER_TASK_COUNT", "PATH", "PWD")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_STATUS = {"CapPrm": "0" * 16, "CapEff": "0" * 16, "NoNewPrivs": "1"}
# What a shell can see of its walls, in the words of `probe`; the judge looks at the rest.
_SCRIPT = f"""
wall() {{ echo "wall $*"; }}
for place in / /usr /etc /dev /proc /sys; do
    (: > $place/lender-selftest) 2>/dev/null && wall "can write below $place"
done
for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /dev/kmsg; do
    (: >> $file) 2>/dev/null && wall "can write $file"
done
for place in /home /root /var /run/user /sys/class/net; do
    [ -e $place ] && wall "sees $place"
done
for name in $(tail -n +3 /proc/net/dev | cut -d: -f1); do
    [ $name = lo ] || wall "sees network interface $name"
done
[ -z "$(tr -d '\\0' < /proc/1/environ 2>/dev/null)" ] || wall "the environment of process 1 shows"
unshare --user true 2>/dev/null && wall "can make a user namespace"
(: > here) 2>/dev/null || wall "can't write its working folder"
[ -e {enter.PLACE} ] && echo entered
env | while IFS= read -r line; do echo "env ${{line%%=*}}"; done
ls -l /proc/self/ns
cat /proc/self/status
"""
# Writes "ok" with WASI's fd_write: types, import, function, memory, exports, code, data.
_MODULE = (
    b"\0asm\x01\0\0\0"
    b"\x01\x0c\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00"
    b"\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\x00\x00"
    b"\x03\x02\x01\x01"
    b"\x05\x03\x01\x00\x01"
    b"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x01"
    b"\x0a\x0f\x01\x0d\x00\x41\x01\x41\x00\x41\x01\x41\x14\x10\x00\x1a\x0b"
    b"\x0b\x10\x01\x00\x41\x00\x0b\x0a\x08\x00\x00\x00\x02\x00\x00\x00ok"
)
_MENDS = {
    "(bwrap) is not installed": "install the package bubblewrap",
    "(package crun)": "install the package crun",
    "wasmtime": "install wasmtime; it has no wheel for 32-bit ARM",
    "as root": "name an ordinary user in the setting `user`",
    "uid map": "allow user namespaces for /usr/bin/bwrap (AppArmor: a profile with `userns,`)",
    "RTM_NEWADDR": "allow user namespaces for /usr/bin/bwrap (AppArmor: a profile with `userns,`)",
    "namespace": "allow unprivileged user namespaces (sysctl user.max_user_namespaces)",
}


class Available(NamedTuple):
    """The runtime holds here.

    Attributes:
        notes: what it does less well here than it could, for the owner to read.
    """

    notes: tuple[str, ...] = ()


class Unavailable(NamedTuple):
    """The runtime is not offered.

    Attributes:
        reason: what was seen.
        mend: what the owner can do, empty when nothing is known.
        breached: it runs, and one of its walls does not stand.
    """

    reason: str
    mend: str
    breached: bool = False


Verdict = Available | Unavailable


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict in words, for `lender status` and `lender doctor`."""
    if isinstance(verdict, Available):
        return {"available": True, "reason": "", "mend": "", "notes": list(verdict.notes)}
    return {"available": False, "reason": verdict.reason, "mend": verdict.mend, "notes": []}


class _Seen(NamedTuple):
    """What was seen of its walls: those that don't stand; whether the files have a second one."""

    walls: list[str]
    entered: bool


async def check(
    launcher: Launcher,
    scratch_root: Path,
    cgroups: Subtree | None = None,
    runtimes: Sequence[Runtime] = RUNTIMES,
) -> dict[Runtime, Verdict]:
    """Run a small task in each of these runtimes and look whether its walls stand.

    Args:
        launcher: the one that will run the real work.
        scratch_root: an existing folder that the sandboxes' user can reach.
        cgroups: where their cgroups will be made.
        runtimes: those to try.
    """
    try:
        with _host() as host:
            trials = (_try(launcher, scratch_root, one, cgroups, host) for one in runtimes)
            found = await asyncio.gather(*trials)
    except OSError as error:
        return dict.fromkeys(runtimes, _unavailable(f"it can't be tried: {error}"))
    return dict(zip(runtimes, found, strict=True))


async def check_alone(user: tuple[int, int] | None = None) -> dict[Runtime, Verdict]:
    """The same where no lenderd runs, with a launcher of its own.

    Args:
        user: uid and gid of the sandboxes; needed when this process is root.
    """
    with tempfile.TemporaryDirectory(prefix="lender-selftest-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240 - once, in an instant
        launcher = await Launcher.start(drop_to=user, preload=RUNTIMES)
        try:
            return await check(launcher, folder)
        finally:
            await launcher.close()


async def _try(
    launcher: Launcher,
    scratch_root: Path,
    runtime: Runtime,
    cgroups: Subtree | None,
    host: dict[str, Any],
) -> Verdict:
    try:
        return await _see(launcher, scratch_root, runtime, cgroups, host)
    except OSError as error:
        # No room on the disk, no descriptors: of the machine's walls it says nothing.
        return _unavailable(f"it can't be tried: {error}")


async def _see(
    launcher: Launcher,
    scratch_root: Path,
    runtime: Runtime,
    cgroups: Subtree | None,
    host: dict[str, Any],
) -> Verdict:
    with tempfile.TemporaryDirectory(dir=scratch_root, prefix="selftest-") as name:
        plan = _plan(Path(name), runtime, launcher.drop_to, host)
        sandbox = LeaseSandbox(plan, launcher, _forget, cgroups=cgroups)
        try:
            await sandbox.prepare()
            outcome = await sandbox.run(0)
        except (PrepareFailedError, SandboxGoneError) as error:
            return _unavailable(str(error))
        finally:
            await sandbox.close()
    if outcome.state != "succeeded":
        return _unavailable(outcome.error or outcome.stderr_tail.decode(errors="replace")[:300])
    try:
        seen = _SEEN[runtime](outcome, host)
    except (ValueError, LookupError, TypeError):
        return _unavailable(f"unexpected answer {outcome.value[:80]!r}")
    if seen.walls:
        mend = "report this: nothing of it runs here until then"
        return Unavailable("; ".join(seen.walls), mend, breached=True)
    keeps: frozenset[Kept] = frozenset() if cgroups is None else cgroups.keeps
    return Available(tuple(_notes(runtime, keeps, entered=seen.entered)))


def _plan(
    folder: Path, runtime: Runtime, user: tuple[int, int] | None, host: dict[str, Any]
) -> SandboxPlan:
    scratch = folder / "scratch"
    scratch.mkdir()
    if user is not None:
        folder.chmod(0o711)
        os.chown(scratch, *user)
    content = {"wasm": _MODULE, "python": _pickled_probe(host)}.get(runtime)
    program = None if content is None else folder / "program"
    if program is not None and content is not None:
        program.write_bytes(content)
        program.chmod(0o644)
    return SandboxPlan(
        lease=f"selftest-{runtime}",
        runtime=runtime,
        job="selftest",
        task_count=1,
        program=program,
        argv=("sh", "-c", _SCRIPT) if content is None else (),
        env={},
        inputs={},
        outputs=(),
        limits=_LIMITS,
        scratch=scratch,
        grace_s=0.0,
    )


class _Evaluated:
    """Pickles to the value of a Python expression: a function as source, for any interpreter."""

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, (self._expression,)


def _pickled_probe(host: dict[str, Any]) -> bytes:
    text = Path(probe.__file__).read_text()
    expression = f"(lambda names: (exec({text!r}, names), names['probe']({host!r}))[1])({{}})"
    return pickle.dumps(_Evaluated(expression))


@contextlib.contextmanager
def _host() -> Iterator[dict[str, Any]]:
    """What no sandbox may reach, and what it may see, for `probe`."""
    namespaces = {}
    for kind in _NAMESPACES:
        with contextlib.suppress(OSError):
            namespaces[kind] = os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115 - the text alone
    abstract = f"\0lender-selftest-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as loopback, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen(1)
        yield {
            "port": loopback.getsockname()[1],
            "abstract": abstract,
            "namespaces": namespaces,
            "environment": _ENVIRONMENT,
            "filtered": seccomp.program() is not None,
            "enter": enter.PLACE,
        }


def _see_wasm(outcome: TaskOutcome, _host: dict[str, Any]) -> _Seen:
    walls = [] if outcome.value == b"ok" else [f"unexpected answer {outcome.value[:80]!r}"]
    # Nobody prepares it where the kernel has Landlock and its rules don't hold.
    return _Seen(walls, entered=landlock.abi() >= landlock.FILES_SINCE_ABI)


def _see_python(outcome: TaskOutcome, _host: dict[str, Any]) -> _Seen:
    return _Seen(**json.loads(outcome.value.removeprefix(b"b")))


def _see_process(outcome: TaskOutcome, host: dict[str, Any]) -> _Seen:
    text = outcome.value.decode(errors="replace")
    lines = text.splitlines()
    walls = [line.removeprefix("wall ") for line in lines if line.startswith("wall ")]
    names = {line.removeprefix("env ") for line in lines if line.startswith("env ")}
    walls += [f"shows {name} of an environment" for name in sorted(names - {*_ENVIRONMENT})]
    inside = set(re.findall(r"\w+:\[\d+\]", text))
    walls += [f"shares {one}" for one in sorted(inside.intersection(host["namespaces"].values()))]
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    wanted = _STATUS | ({"Seccomp": "2"} if host["filtered"] else {})
    walls += [f"has {name} {status[name]}" for name in wanted if status[name] != wanted[name]]
    if not names or not inside:
        walls.append("its walls can't be seen: no env, or no ls, in /usr/bin")
    return _Seen(walls, entered="entered" in lines)


_SEEN: dict[Runtime, Callable[[TaskOutcome, dict[str, Any]], _Seen]] = {
    "wasm": _see_wasm,
    "process": _see_process,
    "python": _see_python,
    "oci": _see_process,
}


def _notes(runtime: Runtime, keeps: frozenset[Kept], *, entered: bool) -> Iterator[str]:
    if "cpu" not in keeps:
        yield "cores are kept by admission alone: no cgroup limits them"
    yield "disk is watched, not limited: it may be over its limit for a moment"
    if runtime == "wasm":
        if not entered:
            yield "no second wall around its process: no Landlock of version 2 or later"
        return
    if "memory" not in keeps:
        yield "memory is watched, and limited by address space: no cgroup limits it"
    if "processes" not in keeps:
        yield "processes are limited by RLIMIT_NPROC alone: no cgroup counts them"
    if not entered:
        yield "no second wall around its files: no Landlock, or its helper is not built"
    if not seccomp.program():
        yield "no system call filter for this processor: it can reserve disk space faster than seen"


def _unavailable(reason: str) -> Unavailable:
    mend = next((mend for sign, mend in _MENDS.items() if sign in reason), "")
    return Unavailable(reason, mend)


async def _forget(_roots: tuple[Root, ...]) -> None:
    """The self-test's processes hold nothing of anybody's: no record."""

"""Which runtimes hold on this machine: each is tried for real before it is ever offered.

A wall that can't be shown to stand is not there: the runtime is then not offered, with the reason
and what to do about it.
"""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import RUNTIMES, Limits, Runtime, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root
from lender.sandbox.walls import seccomp

_LIMITS = Limits(
    cpu=1,
    memory_bytes=256 << 20,
    time_s=1.5,
    output_bytes=1 << 16,
    scratch_bytes=1 << 20,
    processes=16,
)
_ENVIRONMENT = {"HOME", "LENDER_JOB", "LENDER_TASK", "LENDER_TASK_COUNT", "PATH", "PWD"}
# Prints a line for each wall that does not stand, and the names of its environment.
_WALLS = """
for place in / /usr /etc /dev /proc/sys/kernel; do
    if (: > $place/lender-selftest) 2>/dev/null; then echo "wall: can write below $place"; fi
done
[ -s /proc/1/environ ] && echo "wall: the environment of process 1 shows"
for name in /sys/class/net/* $(tail -n +3 /proc/net/dev | cut -d: -f1); do
    case $name in lo | '/sys/class/net/*') ;; *) echo "wall: sees network interface $name" ;; esac
done
: > here || echo "wall: can't write its working folder"
env | cut -d= -f1
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
    "not installed": "install the package bubblewrap",
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
    """

    reason: str
    mend: str


async def check(
    launcher: Launcher, scratch_root: Path, cgroups: Subtree | None = None
) -> dict[Runtime, Available | Unavailable]:
    """Run a small task in each runtime and look whether its walls stand.

    Args:
        launcher: the one that will run the real work.
        scratch_root: an existing folder that the sandboxes' user can reach.
        cgroups: where their cgroups will be made.
    """
    checks = (_check(launcher, scratch_root, one, cgroups) for one in RUNTIMES)
    found = await asyncio.gather(*checks)
    return dict(zip(RUNTIMES, found, strict=True))


async def _check(
    launcher: Launcher, scratch_root: Path, runtime: Runtime, cgroups: Subtree | None
) -> Available | Unavailable:
    with tempfile.TemporaryDirectory(dir=scratch_root, prefix="selftest-") as name:
        plan = _plan(Path(name), runtime, launcher.drop_to)
        sandbox = LeaseSandbox(plan, launcher, _forget, cgroups=cgroups)
        try:
            await sandbox.prepare()
            outcome = await sandbox.run(0)
        except (PrepareFailedError, SandboxGoneError) as error:
            return _unavailable(str(error))
        finally:
            await sandbox.close()
    return _judge_wasm(outcome) if runtime == "wasm" else _judge_process(outcome)


def _plan(folder: Path, runtime: Runtime, user: tuple[int, int] | None) -> SandboxPlan:
    program, scratch = None, folder / "scratch"
    scratch.mkdir()
    if user is not None:
        folder.chmod(0o711)
        os.chown(scratch, *user)
    if runtime == "wasm":
        program = folder / "program.wasm"
        program.write_bytes(_MODULE)
        program.chmod(0o644)
    return SandboxPlan(
        lease=f"selftest-{runtime}",
        runtime=runtime,
        job="selftest",
        task_count=1,
        program=program,
        argv=() if runtime == "wasm" else ("sh", "-c", _WALLS),
        env={},
        inputs={},
        outputs=(),
        limits=_LIMITS,
        scratch=scratch,
    )


def _judge_wasm(outcome: TaskOutcome) -> Available | Unavailable:
    if outcome.state == "succeeded" and outcome.value == b"ok":
        return Available(("cores are not limited: no cgroup",))
    return _unavailable(outcome.error or f"unexpected answer {outcome.value[:80]!r}")


def _judge_process(outcome: TaskOutcome) -> Available | Unavailable:
    if outcome.state != "succeeded":
        return _unavailable(outcome.error or outcome.stderr_tail.decode(errors="replace")[:300])
    lines = outcome.value.decode(errors="replace").split()
    broken = [line for line in outcome.value.decode().splitlines() if line.startswith("wall: ")]
    if broken or not set(lines) <= _ENVIRONMENT:
        return _unavailable("; ".join(broken) or f"shows the environment {lines}")
    notes = ["cores are not limited, memory is watched and limited by address space: no cgroup"]
    if not seccomp.program():
        notes.append("no system call filter for this processor")
    return Available(tuple(notes))


def _unavailable(reason: str) -> Unavailable:
    mend = next((mend for sign, mend in _MENDS.items() if sign in reason), "")
    return Unavailable(reason, mend)


async def _forget(_roots: tuple[Root, ...]) -> None:
    """The self-test's processes hold nothing of anybody's: no record."""

"""Which runtimes hold on this machine: each is tried for real before it is ever offered.

A wall that can't be shown to stand is not there: the runtime is then not offered, with the reason
and what to do about it. All are tried at once, in well under two seconds. Those that can have a
network are tried with one: all walls have to stand beside it, and its proxy has to refuse. Where
that fails they are tried without.
"""

import asyncio
import math
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lender.protocol.reach import INTERNET
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import (
    PROXY_ENVIRONMENT,
    PROXY_PORT,
    RUNTIMES,
    Limits,
    Network,
    Runtime,
    SandboxPlan,
)
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.processes.tree import Root

if sys.platform == "darwin":
    from lender.sandbox.trials import mac as here
else:
    from lender.sandbox.trials import linux as here

_LIMITS = Limits(
    cpu=1,
    memory_bytes=256 << 20,
    time_s=10.0,  # it takes a fraction of a second, but a busy owner comes first
    output_bytes=1 << 16,
    scratch_bytes=1 << 20,
    processes=16,
)
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


class Available(NamedTuple):
    """The runtime holds here.

    Attributes:
        notes: what it does less well here than it could, for the owner to read.
        network: its sandboxes can be given one.
        doubtful: that may be so yet: no wall was seen not to stand.
    """

    notes: tuple[str, ...] = ()
    network: bool = False
    doubtful: bool = False


class Unavailable(NamedTuple):
    """The runtime is not offered.

    Attributes:
        reason: what was seen.
        mend: what the owner can do, empty when nothing is known.
        breached: it runs, and one of its walls does not stand.
        late: it was not seen in time, which says nothing of it.
    """

    reason: str
    mend: str
    breached: bool = False
    late: bool = False


Verdict = Available | Unavailable

_CUT_OFF = Unavailable(
    "its test was cut off, as it took too long",
    "try again once the machine is less busy",
    late=True,
)


def told(verdict: Verdict) -> dict[str, Any]:
    """A verdict in words, for `lender status` and `lender doctor`."""
    if isinstance(verdict, Available):
        return {"available": True, "reason": "", "mend": "", "notes": list(verdict.notes)}
    return {"available": False, "reason": verdict.reason, "mend": verdict.mend, "notes": []}


async def check(
    launcher: Launcher,
    scratch_root: Path,
    cgroups: Subtree | None = None,
    runtimes: Sequence[Runtime] = RUNTIMES,
    within_s: float = math.inf,
) -> dict[Runtime, Verdict]:
    """Run a small task in each of these runtimes and look whether its walls stand.

    Args:
        launcher: the one that will run the real work.
        scratch_root: an existing folder that the sandboxes' user can reach.
        cgroups: where their cgroups will be made.
        runtimes: those to try.
        within_s: what has not been seen by then is `late`.
    """
    again = math.isinf(within_s)
    try:
        with here.host() as host:
            trials = (
                _within(within_s, _try(launcher, scratch_root, one, cgroups, host, again=again))
                for one in runtimes
            )
            found = await asyncio.gather(*trials)
    except OSError as error:
        return dict.fromkeys(runtimes, _unavailable(f"it can't be tried: {error}"))
    return dict(zip(runtimes, found, strict=True))


async def check_alone(
    user: tuple[int, int] | None = None, within_s: float = math.inf
) -> dict[Runtime, Verdict]:
    """The same where no lenderd runs, with a launcher of its own.

    Args:
        user: uid and gid of the sandboxes; needed when this process is root.
        within_s: what has not been seen by then is `late`; a little is needed to clear up.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + within_s
    with tempfile.TemporaryDirectory(prefix="lender-selftest-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240 - once, in an instant
        try:
            async with asyncio.timeout(None if math.isinf(within_s) else within_s):
                launcher = await Launcher.start(drop_to=user, preload=RUNTIMES)
        except TimeoutError:
            return dict.fromkeys(RUNTIMES, _CUT_OFF)
        try:
            return await check(launcher, folder, within_s=max(0.0, end - clock()))
        finally:
            await launcher.close()


async def _within(within_s: float, trial: Coroutine[Any, Any, Verdict]) -> Verdict:
    try:
        async with asyncio.timeout(None if math.isinf(within_s) else within_s):
            return await trial
    except TimeoutError:
        return _CUT_OFF


async def _try(
    launcher: Launcher,
    scratch_root: Path,
    runtime: Runtime,
    cgroups: Subtree | None,
    host: dict[str, Any],
    *,
    again: bool,
) -> Verdict:
    """Try one; `again` without a network, too, where it had too little time with one."""
    try:
        if runtime not in here.NETWORKED:
            return await _see(launcher, scratch_root, runtime, cgroups, host, None)
        # What stands beside a network stands without one.
        names = (*host["environment"], *PROXY_ENVIRONMENT)
        beside = {**host, "environment": names, "proxy": PROXY_PORT}
        network = Network((INTERNET,))
        found = await _see(launcher, scratch_root, runtime, cgroups, beside, network)
        if isinstance(found, Available):
            return found._replace(network=True)
        if found.late and not again:
            return found
        alone = await _see(launcher, scratch_root, runtime, cgroups, host, None)
    except OSError as error:
        # No room on the disk, no descriptors: of the machine's walls it says nothing.
        return _unavailable(f"it can't be tried: {error}")
    if isinstance(alone, Available):
        notes = (*alone.notes, f"it is given no network: {found.reason}")
        return Available(notes, doubtful=not found.breached)
    return alone


async def _see(
    launcher: Launcher,
    scratch_root: Path,
    runtime: Runtime,
    cgroups: Subtree | None,
    host: dict[str, Any],
    network: Network | None,
) -> Verdict:
    with tempfile.TemporaryDirectory(dir=scratch_root, prefix="selftest-") as name:
        plan = _plan(Path(name), runtime, launcher.drop_to, host)._replace(network=network)
        sandbox = LeaseSandbox(plan, launcher, _forget, cgroups=cgroups)
        try:
            await sandbox.prepare()
            outcome = await sandbox.run(0)
        except (PrepareFailedError, SandboxGoneError) as error:
            return _unavailable(str(error))
        finally:
            await sandbox.close()
    if outcome.limit == "time":
        return _CUT_OFF._replace(reason=outcome.error or _CUT_OFF.reason)
    if outcome.state != "succeeded":
        return _unavailable(outcome.error or outcome.stderr_tail.decode(errors="replace")[:300])
    try:
        seen = here.see(runtime, outcome, host)
    except (ValueError, LookupError, TypeError):
        return _unavailable(f"unexpected answer {outcome.value[:80]!r}")
    if seen.walls:
        mend = "report this: nothing of it runs here until then"
        return Unavailable("; ".join(seen.walls), mend, breached=True)
    keeps: frozenset[Kept] = frozenset() if cgroups is None else cgroups.keeps
    return Available(tuple(here.notes(runtime, keeps, entered=seen.entered)))


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
        lease=f"selftest-{runtime}{'-net' if 'proxy' in host else ''}",
        runtime=runtime,
        job="selftest",
        task_count=1,
        program=program,
        argv=here.command(host) if content is None else (),
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
    text = here.PROBE.read_text()
    expression = f"(lambda names: (exec({text!r}, names), names['probe']({host!r}))[1])({{}})"
    return pickle.dumps(_Evaluated(expression))


def _unavailable(reason: str) -> Unavailable:
    mend = next((mend for sign, mend in here.MENDS.items() if sign in reason), "")
    return Unavailable(reason, mend)


async def _forget(_roots: tuple[Root, ...]) -> None:
    """The self-test's processes hold nothing of anybody's: no record."""

"""What this machine can run: the self-test of each runtime, and what of it the owner offers."""

import asyncio
import logging
import platform
from collections.abc import Callable, Collection
from pathlib import Path

from lender.core.events import Capabilities
from lender.protocol.job import Runtime
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.plan import RUNTIMES
from lender.sandbox.processes.subtree import Subtree
from lender.sandbox.runtimes import installed_python
from lender.sensors.gpu import GpuMeter

log = logging.getLogger(__name__)

_LEFT_OUT = selftest.Unavailable("your settings leave it out", "")
_OS = {"Linux": "linux", "Darwin": "macos"}

_FIRST_PAUSE_S = 30.0
_LAST_PAUSE_S = 3600.0


class Trials:
    """What the self-test says of each runtime.

    What did not work is tried again: a machine that is busy starting up may have had no time, and
    owners install what is missing. A wall that was seen not to stand is not believed again.
    """

    def __init__(
        self,
        launcher: Launcher,
        scratch: Path,
        cgroups: Subtree | None,
        offered: Collection[Runtime],
    ) -> None:
        self._launcher = launcher
        self._scratch = scratch
        self._cgroups = cgroups
        self._offered = [runtime for runtime in RUNTIMES if runtime in offered]
        self._verdicts: dict[Runtime, selftest.Verdict] = {}

    @property
    def doubtful(self) -> list[Runtime]:
        """What is offered and may work, or have a network, though it has not yet."""
        return [one for one in self._offered if _may_work(self._verdicts.get(one))]

    @property
    def told(self) -> dict[str, dict[str, object]]:
        """A verdict on every runtime, in words."""
        return {one: selftest.told(self._verdicts.get(one, _LEFT_OUT)) for one in RUNTIMES}

    async def tell(self, whom: Callable[[Capabilities], None]) -> None:
        """Try what is doubtful, and tell what the machine can run if that is news."""
        if (found := await self.run()) is not None:
            whom(found)

    async def tell_later(self, whom: Callable[[Capabilities], None]) -> None:
        """Do so again, ever less often, until nothing is doubtful."""
        pause_s = _FIRST_PAUSE_S
        while self.doubtful:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            await self.tell(whom)

    async def run(self) -> Capabilities | None:
        """Try what is doubtful; return what the machine can run, None if that is no news."""
        before = dict(self._verdicts)
        found = await selftest.check(self._launcher, self._scratch, self._cgroups, self.doubtful)
        for runtime, verdict in found.items():
            if isinstance(verdict, selftest.Unavailable) and verdict != before.get(runtime):
                log.warning("runtime %s is not offered: %s", runtime, verdict.reason)
        self._verdicts |= found
        works = {
            one for one, said in self._verdicts.items() if isinstance(said, selftest.Available)
        }
        if before and not any(runtime in works for runtime in found):
            return None
        return Capabilities(
            arch=platform.machine(),
            os=_OS.get(platform.system(), "unknown"),
            runtimes=frozenset(works),
            gpu="nvidia" if GpuMeter.open() else "none",
            # We are the sandboxes' user by now, so what is found is what the self-test ran.
            python=installed_python.find().version if "python" in works else None,
            net=frozenset(
                one
                for one, said in self._verdicts.items()
                if isinstance(said, selftest.Available) and said.network
            ),
        )


def _may_work(verdict: selftest.Verdict | None) -> bool:
    if isinstance(verdict, selftest.Unavailable):
        return not verdict.breached
    return verdict is None or verdict.doubtful

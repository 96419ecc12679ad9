"""A sandbox that nobody needs just now stands still, soon or at once."""

import asyncio

from lender.sandbox.processes import stopping
from lender.sandbox.processes.stopping import Target

SOON_S = 0.05
"""More mostly comes at once: to stop and to go on costs more than many a task."""


class Rest:
    """The rest of one sandbox, from `begin` to `end`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._timer: asyncio.TimerHandle | None = None
        self._stands = False

    def begin(self, after_s: float) -> None:
        """Have it stand still when so long has passed; 0: now, and verified."""
        if after_s == 0:
            self._stop()
        else:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._stop)

    def call_off(self) -> None:
        """Begin no rest any more; one that has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Let it go on."""
        self.call_off()
        if self._stands:
            self._stands = False
            stopping.thaw((self._target,))

    def _stop(self) -> None:
        self._timer, self._stands = None, True
        stopping.freeze((self._target,))

"""What an offer lists, and when the next one is due."""

import math
from collections.abc import Iterable
from typing import get_args

from lender.core.config import Config
from lender.core.consent import Grant
from lender.core.events import Capabilities
from lender.protocol.bounds import OFFERED_NETS_MAX
from lender.protocol.classes import WorkClass
from lender.protocol.job import Arch, Gpu
from lender.protocol.lease import OfferedNet

CLASSES_MAX = 4096
"""As many as an offer may list."""

CHANGED_S = 0.05
"""Between two offers; and what a lease changes that does what one before it did is told so much
later, unless it is over by then: the report says as much. Who is killed before it is told has its
lease given to others when WORK gives it again, and not when it falls silent."""

HOLDING_S = 0.5
IDLE_S = 5.0


def class_tokens(
    config: Config, capabilities: Capabilities, grants: Iterable[Grant]
) -> tuple[str, ...]:
    """Return the classes that `grants` allow and this machine can run, in order."""
    arches = [arch for arch in get_args(Arch) if arch in ("any", capabilities.arch)]
    tokens = {
        WorkClass(pool, runtime, arch, gpu, one.submitter, one.workload, python).token
        for one in grants
        if one.workload in config.workloads
        for runtime in {config.workloads[one.workload].runtime} & capabilities.runtimes
        for python in [capabilities.python if runtime == "python" else None]
        for pool in config.pools
        for arch in arches
        for gpu in _gpus(one, capabilities)
    }
    return tuple(sorted(tokens)[:CLASSES_MAX])


def offered_nets(
    config: Config, capabilities: Capabilities, grants: Iterable[Grant]
) -> tuple[OfferedNet, ...]:
    """Return where work may get to on the network that `grants` allow and this machine can run."""
    nets = [
        OfferedNet(submitter=one.submitter, workload=one.workload, reach=one.net)
        for one in grants
        if one.net
        and one.workload in config.workloads
        and config.workloads[one.workload].runtime in capabilities.runtimes & capabilities.net
    ]
    return tuple(nets[:OFFERED_NETS_MAX])


def _gpus(grant: Grant, capabilities: Capabilities) -> set[Gpu]:
    return {"none", capabilities.gpu} if grant.vram_bytes else {"none"}


class OfferPace:
    """An offer at once where what it says has changed, and a heartbeat otherwise.

    What leases change that repeat others waits for a moment: of a short one nothing is said at all.
    """

    def __init__(self) -> None:
        self._sent_at = -math.inf
        self._said: object = None
        self._work_said: object = None
        self._change_due: float | None = self._sent_at
        self._holding = False
        self._asked = False

    def ask(self) -> None:
        """Offer as soon as possible: a broker is listening anew."""
        self._asked = True

    def waits(self, now: float) -> bool:
        """Tell whether none is due whatever it says: the last is too young for a change."""
        return self._change_due is not None and not self._asked and now < self._change_due

    def due(self, now: float, says: object, work: object, *, holding: bool) -> bool:
        """Tell whether an offer is to be sent now, and count it as sent.

        Args:
            now: seconds since the epoch.
            says: what is told at once.
            work: the leases, and what is free beside them.
            holding: whether there are any.
        """
        self._holding = holding
        if says != self._said:
            self._change_due = self._sent_at + CHANGED_S
        elif work == self._work_said:
            self._change_due = None
        elif self._change_due is None:
            self._change_due = now + CHANGED_S
        if not self._asked and now < self.next_deadline():
            return False
        self._sent_at, self._said, self._work_said = now, says, work
        self._asked, self._change_due = False, None
        return True

    def next_deadline(self) -> float:
        """Return when the next offer is due."""
        if self._change_due is not None:
            return self._change_due
        return self._sent_at + (HOLDING_S if self._holding else IDLE_S)

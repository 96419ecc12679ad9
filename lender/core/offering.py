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
    """An offer at once where what it says has changed, and a heartbeat otherwise."""

    def __init__(self) -> None:
        self._sent_at = -math.inf
        self._said: object = None
        self._changed = True
        self._holding = False
        self._asked = False

    def ask(self) -> None:
        """Offer as soon as possible: a broker is listening anew."""
        self._asked = True

    def waits(self, now: float) -> bool:
        """Tell whether none is due whatever it says: the last is too young for a change."""
        return self._changed and not self._asked and now < self._sent_at + CHANGED_S

    def due(self, now: float, says: object, *, holding: bool) -> bool:
        """Tell whether an offer that `says` this is to be sent now, and count it as sent."""
        self._changed = says != self._said
        self._holding = holding
        if not self._asked and now < self.next_deadline():
            return False
        self._sent_at, self._said = now, says
        self._asked = self._changed = False
        return True

    def next_deadline(self) -> float:
        """Return when the next offer is due."""
        if self._changed:
            return self._sent_at + CHANGED_S
        return self._sent_at + (HOLDING_S if self._holding else IDLE_S)

"""Sandboxes of finished leases that wait, idle, for more of the same: never for anybody else's."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final, NamedTuple

from lender.core.admission import Plan
from lender.core.effects import CloseSandbox, Effect
from lender.protocol.interpreter import INTERPRETER_VARIABLE
from lender.protocol.job import JobSpec, Runtime

KEEP_S: Final = 5.0
"""More of a job comes within milliseconds; a sandbox that is idle for longer holds memory only."""

ANEW_FOR_EACH_TASK: Final[frozenset[Runtime]] = frozenset({"wasm", "process", "oci"})
"""Runtimes whose tasks meet nothing that one before them left in the same sandbox."""

MADE_OF: Final = (
    "submitter",
    "workload",
    "runtime",
    "program",
    "argv",
    "env",
    "inputs",
    "outputs",
    "limits",
    "requires",
    "traceparent",
)
"""What of its job a sandbox is made of. Beside that it is told the job's id, its number of tasks,
and with each task the words that are its own."""

_parts = attrgetter(*MADE_OF)
_parts_beside_program = attrgetter(*(one for one in MADE_OF if one != "program"))


class KeptSandbox(NamedTuple):
    """One of them.

    Attributes:
        lease: the one that it worked for last.
        plan: of that lease.
        until: it is closed then, seconds since the epoch.
    """

    lease: str
    plan: Plan
    until: float


class KeptSandboxes:
    """Kept sandboxes, the coldest first. Each leaves by being taken over or by being closed."""

    def __init__(self) -> None:
        self._kept: dict[str, KeptSandbox] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[KeptSandbox]:
        return iter(self._kept.values())

    @property
    def memory_bytes(self) -> int:
        """What they may hold."""
        return sum(one.plan.spec.limits.memory_bytes for one in self)

    def keep(self, now: float, lease: str, plan: Plan) -> None:
        """Take up that the sandbox of a finished lease is kept."""
        self._kept[lease] = KeptSandbox(lease, plan, now + KEEP_S)

    def take(self, plan: Plan) -> str | None:
        """Return the lease whose sandbox fits `plan`, the warmest of them; it is kept no longer.

        It fits the same job, or one that asks for the same, of the same submitter and under the
        same grant.
        """
        for one in reversed(self._kept.values()):
            if one.plan.grant.id == plan.grant.id and _fits(one.plan.spec, plan.spec):
                del self._kept[one.lease]
                return one.lease
        return None

    def close(self, unless: Callable[[KeptSandbox], bool]) -> list[Effect]:
        """Close all but those that may stay."""
        return [self._close(one) for one in list(self) if not unless(one)]

    def shrink(self, count: int, memory_bytes: int) -> list[Effect]:
        """Close the coldest until no more than so many are left, holding no more than so much."""
        effects: list[Effect] = []
        while self._kept and (len(self) > count or self.memory_bytes > memory_bytes):
            effects.append(self._close(next(iter(self))))
        return effects

    def _close(self, one: KeptSandbox) -> Effect:
        del self._kept[one.lease]
        return CloseSandbox(one.lease)


def _fits(kept: JobSpec, spec: JobSpec) -> bool:
    """Tell whether a sandbox of the job `kept` is as good as a new one for `spec`."""
    if kept.id == spec.id:
        return kept == spec
    # Keys, states and connections are one job's alone.
    if any(one.sealing or one.checkpoint or one.requires.net for one in (kept, spec)):
        return False
    if spec.runtime in ANEW_FOR_EACH_TASK:
        return bool(_parts(kept) == _parts(spec))
    # An interpreter remembers what ran in it: who wants that says so, and names which.
    named = INTERPRETER_VARIABLE in spec.env
    return named and bool(_parts_beside_program(kept) == _parts_beside_program(spec))

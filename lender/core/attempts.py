"""The attempts that have a sandbox, what they hold of the machine, and the sandboxes kept warm."""

from collections import Counter
from collections.abc import Iterator, Mapping

from lender.core.attempt import AttemptState
from lender.core.budget import Usage
from lender.core.effects import Effect
from lender.core.hold import Hold
from lender.core.kept_sandboxes import KeptSandboxes
from lender.core.lease_run import LeaseRun
from lender.protocol.lease import LeaseState

STOPPED = Hold("something stopped it without a word, as a pause does that is cut off")


class Attempts:
    """By lease, oldest first. An attempt leaves by `close`.

    Attributes:
        kept: sandboxes of attempts that are over.
        fresh: the last lease that does not do what one before it did: it may take any time.
        cpu_committed: cores that the attempts asked for.
        memory_committed_bytes: memory that they may grow to.
        disk_committed_bytes: what their working folders may grow to.
    """

    def __init__(self) -> None:
        self._runs: dict[str, LeaseRun] = {}
        self._spent: list[tuple[str, Usage]] = []
        self.kept = KeptSandboxes()
        self.fresh: str | None = None
        self.cpu_committed = 0
        self.memory_committed_bytes = 0
        self.disk_committed_bytes = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LeaseRun]:
        return iter(self._runs.values())

    def get(self, lease: str) -> LeaseRun | None:
        """Return the attempt of a lease, if it has a sandbox."""
        return self._runs.get(lease)

    @property
    def vram_committed_bytes(self) -> Mapping[int, int]:
        """GPU memory that they may grow to, by the index of the GPU."""
        committed: Counter[int] = Counter()
        for run in self:
            if run.gpu is not None:
                committed[run.gpu] += run.plan.spec.requires.vram_bytes
        return committed

    @property
    def devices_in_use(self) -> frozenset[str]:
        """The devices that one of them has, by their labels."""
        return frozenset(device for run in self for device in run.devices)

    def begin(self, run: LeaseRun, free_bytes: int) -> list[Effect]:
        """Give it a sandbox: one that was kept of its job, or a new one.

        Args:
            run: the attempt.
            free_bytes: memory for it and for sandboxes that stay kept; idle ones make room.
        """
        limits = run.plan.spec.limits
        self._runs[run.lease.lease] = run
        self.cpu_committed += limits.cpu
        self.memory_committed_bytes += limits.memory_bytes
        self.disk_committed_bytes += limits.scratch_bytes
        # One that stands has been given no checkpoints.
        reuse = None if run.lease.checkpoints else self.kept.take(run.plan)
        if reuse is None or run.plan.spec.runtime == "python":  # an interpreter runs anything
            self.fresh = run.lease.lease
        left_bytes = free_bytes - limits.memory_bytes
        return [*self.kept.shrink(len(self.kept), left_bytes), run.open(reuse)]

    def close(
        self,
        now: float,
        run: LeaseRun,
        state: AttemptState,
        ended: str,
        *,
        keep: bool = False,
        save: bool = False,
    ) -> Effect:
        """End an attempt; its sandbox may be kept, or its checkpoint saved."""
        limits = run.plan.spec.limits
        del self._runs[run.lease.lease]
        self.cpu_committed -= limits.cpu
        self.memory_committed_bytes -= limits.memory_bytes
        self.disk_committed_bytes -= limits.scratch_bytes
        if keep:
            self.kept.keep(now, run.lease.lease, run.plan)
        self.count(run)
        return run.end(now, state, ended, keep=keep, save=save)

    def count(self, run: LeaseRun) -> None:
        """Have what an attempt used up since it was last asked count as spent."""
        if run.meter.has_untold:
            self._spent.append((run.plan.grant.id, run.meter.untold()))

    def take_spent(self) -> list[tuple[str, Usage]]:
        """Return what was used up since the last call, with the grants that pay for it."""
        for run in self:
            self.count(run)
        spent, self._spent = self._spent, []
        return spent

    def state_of(self, lease: str) -> LeaseState:
        """Return what others hear of a lease that is held."""
        run = self.get(lease)
        if run is None:
            return "running"
        state = run.state
        assert state in ("preparing", "running", "frozen"), state
        return state

    def is_ready(self, lease: str) -> bool:
        """Tell whether a lease waits for the others of its gang, and for nothing else."""
        run = self.get(lease)
        return run is not None and run.waits_for_others

    def seen_still(self, now: float, leases: frozenset[str]) -> None:
        """Take up which sandboxes stand still, by whoever's order."""
        for lease, run in self._runs.items():
            run.seen_still(now, still=lease in leases)

    def take_over_stopped(self) -> None:
        """Let what others stopped go on as far as it may."""
        for run in self:
            run.take_over()

    def frozen_for(self, now: float, duration_s: float) -> list[tuple[LeaseRun, Hold]]:
        """Return what has stood still for `duration_s` or longer, with the reason."""
        return [
            (run, (run.held or STOPPED).after(f"frozen for {duration_s:g} s"))
            for run in self
            if (since := run.still_since) is not None and now >= since + duration_s
        ]

    def overdue(self, now: float) -> list[tuple[LeaseRun, Hold]]:
        """Return what was asked to end and has taken its grace, with the reason."""
        return [
            (run, run.ending.at_once())
            for run in self
            if run.ending is not None and now >= run.end_by
        ]

    def next_deadline(self, frozen_handback_s: float) -> float | None:
        """Return when something here has stood, run or waited long enough."""
        deadlines = [run.end_by for run in self if run.ending is not None]
        deadlines += [run.prepare_by for run in self if run.state == "preparing"]
        deadlines += [one.until for one in self.kept]
        deadlines += [
            since + frozen_handback_s for run in self if (since := run.still_since) is not None
        ]
        return min(deadlines, default=None)

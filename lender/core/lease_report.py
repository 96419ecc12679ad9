"""What the broker is told about one held lease, from its delivery to its ack."""

from collections.abc import Sequence

from lender.core.effects import AckLease, Effect, ExtendLease, ForgetDelivery, SendReport
from lender.protocol.bounds import CHUNK_BYTES_MAX, CHUNK_RESULTS_MAX
from lender.protocol.job import JobSpec
from lender.protocol.lease import Done, Lease, Outcome, TaskCheckpoint
from lender.protocol.result import TaskResult
from lender.protocol.result_run import ResultRun, joined
from lender.protocol.streams import IN_PROGRESS_S

PARTIAL_S = 0.1
"""Partial reports of one lease are at least this far apart, but for parts of full size."""

_FIELD_CHARS_MAX = 200
_REASON_CHARS_MAX = 2000
_FRAME_BYTES = 256
"""About what a result takes beside its variable fields."""


class LeaseReport:
    """Results on their way to the broker, and the queue message that they answer.

    It holds at most one part's results; the shell sends the reports of a lease in order.

    Attributes:
        spec: of its job; None: it is handed back, and was never begun.
        taken: successes that the broker has answered as committed.
        run: tasks that were run to an end, or broken off by the broker's word.
    """

    def __init__(
        self, now: float, delivery: int, lease: Lease, spec: JobSpec | None = None
    ) -> None:
        self.spec = spec
        self.taken = 0
        self.run = 0
        self._lease = lease
        self._delivery = delivery
        self._pieces: list[Sequence[TaskResult]] = []
        self._count = self._succeeded = self._results_bytes = 0
        self._sent_at = now
        self._extended_at = now
        self._number = 0
        self._final_number: int | None = None
        self._untaken: dict[int, int] = {}
        """Successes in each report that is not answered."""

    @property
    def lease(self) -> Lease:
        """The lease, as delivered."""
        return self._lease

    def redelivered(self, delivery: int) -> ForgetDelivery:
        """Answer this message of the queue from now on: it is the same lease again."""
        before, self._delivery = self._delivery, delivery
        return ForgetDelivery(before)

    def add(self, now: float, results: Sequence[TaskResult]) -> list[Effect]:
        """Take up results; parts of full size go out at once.

        Args:
            now: seconds since the epoch.
            results: a run of them is not taken apart, so it is no longer than a part may be.
        """
        effects: list[Effect] = []
        self.run += len(results)
        if isinstance(results, ResultRun):
            size_bytes = len(results) * _FRAME_BYTES + sum(map(len, results.values))
            self._make_room(now, len(results), size_bytes, effects)
            self._pieces.append(results)
            self._succeeded += len(results)
            return effects
        for result in results:
            self._make_room(now, 1, result_bytes(result), effects)
            self._pieces.append((result,))
            self._succeeded += result.state == "succeeded"
        return effects

    def finish(
        self,
        now: float,
        outcome: Outcome,
        field: str = "",
        reason: str = "",
        checkpoints: tuple[TaskCheckpoint, ...] = (),
    ) -> SendReport:
        """Send the final report, with the results that are left."""
        return self._send(
            now,
            final=True,
            outcome=outcome,
            field=field,
            reason=reason,
            checkpoints=checkpoints,
        )

    def drop_results(self) -> None:
        """Forget the results that were not sent: consent for them is withdrawn."""
        self._pieces = []
        self._count = self._succeeded = self._results_bytes = 0

    def accepted(self, number: int) -> None:
        """Take up that the broker has committed report `number`."""
        self.taken += self._untaken.pop(number, 0)

    def disclaim(self) -> None:
        """Count on no answer to what was sent: the results are taken out of it."""
        self._untaken.clear()

    def is_final(self, number: int) -> bool:
        """Tell whether report `number` was the last word on the lease."""
        return number == self._final_number

    def due(self, now: float) -> list[Effect]:
        """Send what has waited long enough, and extend the lease."""
        effects: list[Effect] = []
        if self._pieces and now >= self._sent_at + PARTIAL_S:
            effects.append(self._send(now, final=False))
        if now >= self._extended_at + IN_PROGRESS_S:
            self._extended_at = now
            effects.append(ExtendLease(self._delivery))
        return effects

    def ack(self) -> AckLease:
        """Take the lease off the queue: it is answered, or no longer ours."""
        return AckLease(self._delivery)

    def next_deadline(self) -> float:
        """Return when `due` has something to do."""
        extend_at = self._extended_at + IN_PROGRESS_S
        return min(extend_at, self._sent_at + PARTIAL_S) if self._pieces else extend_at

    def _make_room(self, now: float, count: int, size_bytes: int, effects: list[Effect]) -> None:
        """Count so much more; what is here goes out before it would be too much."""
        is_full = self._count + count > CHUNK_RESULTS_MAX
        if is_full or self._results_bytes + size_bytes > CHUNK_BYTES_MAX:
            effects.append(self._send(now, final=False))
        self._count += count
        self._results_bytes += size_bytes

    def _send(
        self,
        now: float,
        *,
        final: bool,
        outcome: Outcome = "finished",
        field: str = "",
        reason: str = "",
        checkpoints: tuple[TaskCheckpoint, ...] = (),
    ) -> SendReport:
        self._number += 1
        if final:
            self._final_number = self._number
        if self._succeeded:
            self._untaken[self._number] = self._succeeded
        results = joined(self._pieces)
        is_run = isinstance(results, ResultRun)
        report = Done(
            lease=self._lease.lease,
            job=self._lease.job,
            submitter=self._lease.submitter,
            results=() if is_run else results,
            checkpoints=checkpoints,
            final=final,
            outcome=outcome,
            field=field[:_FIELD_CHARS_MAX],
            reason=reason[:_REASON_CHARS_MAX],
        )
        if is_run:
            report = report.model_copy(update={"results": results})
        self._sent_at = now
        self.drop_results()
        return SendReport(self._lease.lease, self._number, report, self._lease)


def result_bytes(result: TaskResult) -> int:
    """Return about how many bytes a result takes on the wire."""
    size_bytes = _FRAME_BYTES + len(result.value) + len(result.stderr_tail)
    if result.outputs:
        size_bytes += sum(len(one.name) + len(one.sha256) for one in result.outputs)
    return size_bytes if result.error is None else size_bytes + len(result.error)

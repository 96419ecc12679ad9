"""The records by which `lender pause` and `lender revoke` find one sandbox without the daemon."""

import asyncio
import time
from pathlib import Path

from lender.core.effects import OpenSandbox
from lender.daemon.receipt_writer import ReceiptWriter
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes.stopping import Target
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.consent_files import is_revoked, read_intent
from lender.state.folder import StateFolder
from lender.state.moved_bytes import MovedBytes


class Recorder:
    """Writes and forgets the records of a sandbox: one for each lease that it works for.

    A record goes once its receipt is on disk, and not before another one names the processes.
    """

    def __init__(
        self, state: StateFolder, records: AttemptRecords, receipts: ReceiptWriter
    ) -> None:
        self._state = state
        self._records = records
        self._receipts = receipts
        self._leases: list[str] = []
        self._forgetting: set[asyncio.Task[None]] = set()

    def write(
        self, target: Target, effect: OpenSandbox, scratch: Path, terms: AttemptTerms
    ) -> None:
        """Write down what is about to run, then make sure that it still may.

        `lender revoke` writes its tombstone before it reads the records: either it finds this
        record, or we find its tombstone.

        Raises:
            SandboxGoneError: the owner's word came first.
            OSError: it could not be written.
        """
        spec, lease = effect.spec, effect.lease.lease
        record = AttemptRecord(
            lease=lease,
            job=spec.id,
            submitter=spec.submitter,
            workload=spec.workload,
            grant=effect.grant,
            roots=target.roots,
            scratch=str(scratch),
            cgroup=None if target.cgroup is None else str(target.cgroup),
            terms=terms,
        )
        self._records.write(record)
        if lease not in self._leases:
            self._leases.append(lease)
        if is_revoked(self._state, effect.grant):
            raise SandboxGoneError(f"grant {effect.grant} was revoked")
        if read_intent(self._state).stops(time.time()):
            raise SandboxGoneError("the owner paused lending")

    def forget_earlier(self) -> None:
        """Forget all but the last that was written, as soon as their receipts allow."""
        earlier, self._leases = self._leases[:-1], self._leases[-1:]
        for lease in earlier:
            task = asyncio.create_task(self._forget(lease))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def forget_all(self) -> None:
        """The processes are gone: forget every record whose receipt is on disk."""
        for lease in self._leases:
            await self._forget(lease)
        await asyncio.gather(*self._forgetting)

    async def _forget(self, lease: str) -> None:
        # Until its receipt is on disk the record is what tells that this ran.
        if await self._receipts.durable(lease):
            self._records.remove(lease)


def terms_of(
    effect: OpenSandbox, started_at: float, cpu_before_s: float, moved_before: MovedBytes
) -> AttemptTerms:
    """Return what a receipt can say of an attempt whose lenderd died."""
    spec = effect.spec
    fetched = sum(one.size_bytes for one in spec.inputs)
    fetched += spec.program.size_bytes if spec.program else 0
    if spec.checkpoint:
        fetched += sum(blob.size_bytes for _, blob in effect.lease.checkpoints)
    return AttemptTerms(
        started_at=started_at,
        cpu=spec.limits.cpu,
        bytes_in=fetched,
        program_sha256=spec.program.sha256 if spec.program else None,
        inputs=tuple((one.name, one.sha256) for one in spec.inputs),
        cpu_before_s=cpu_before_s,
        network=spec.requires.net,
        moved_before=(moved_before.in_bytes, moved_before.out_bytes),
        traceparent=spec.traceparent,
    )

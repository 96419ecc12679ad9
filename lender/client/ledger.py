"""Submissions and cancellations: one durable publish each, repeated until its outcome is known."""

from lender.client.errors import Forged, JobIdTaken, LedgerFull, NoSuchJob, Rejected
from lender.client.insistence import insist
from lender.link.api import JetStream, answer
from lender.link.batch import SUBJECT_TAKEN, is_full
from lender.link.connection import Connection
from lender.link.errors import JetStreamError, PayloadTooLargeError
from lender.link.message import StoredMessage
from lender.protocol import codec, streams, subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.ids import check_job_id
from lender.protocol.job import JobSpec
from lender.protocol.signature import SIGNATURE_HEADER, Signer, verify


class Ledger:
    """Writes to JOBS and reads from it.

    The server takes one message per subject, so that publishing again is always safe: whatever
    became of the first try, at most one is stored.
    """

    def __init__(
        self, connection: Connection, jetstream: JetStream, signer: Signer, timeout_s: float
    ) -> None:
        """Prepare; `timeout_s` bounds each method, all its attempts together."""
        self._connection = connection
        self._jetstream = jetstream
        self._signer = signer
        self._timeout_s = timeout_s

    async def submit(self, job: str, payload: bytes) -> None:
        """Have the job accepted: on return the ledger holds exactly `payload` under its id.

        Raises:
            JobIdTaken: the ledger holds another specification there.
            Rejected: the server takes no message of this size.
            NotAdmitted, Unreachable: not known to be accepted; the same may be submitted again.
        """
        subject = subjects.submit(self._signer.public_key, job)
        headers = {
            codec.CONTENT_TYPE_HEADER: codec.MSGPACK,
            SIGNATURE_HEADER: self._signer.sign(payload),
        }
        if not await self._publish(subject, payload, headers):
            stored = await self._get(subject)
            if stored is not None and stored.payload != payload:
                raise JobIdTaken(job)

    async def cancel(self, job: str) -> None:
        """Ask for the end of a job; asking twice is the same as once.

        Raises:
            NotAdmitted, Unreachable: not known to be accepted.
        """
        await self._publish(subjects.cancel(self._signer.public_key, job), b"", {})

    async def read(self, job: str) -> tuple[JobSpec, bytes]:
        """Return a job's specification, and the bytes of it that were signed.

        The server is not believed that they are this submitter's: a job may be submitted again
        from here, and would then be signed anew.

        Raises:
            NoSuchJob: the ledger holds none under this id.
            Rejected: what it holds breaks the protocol.
            Forged: this submitter's key has not signed it, or not as this job.
            NotAdmitted, Unreachable: it can't be read.
        """
        try:
            subject = subjects.submit(self._signer.public_key, check_job_id(job))
        except ProtocolError as error:
            raise NoSuchJob(job) from error
        stored = await self._get(subject)
        if stored is None:
            raise NoSuchJob(job)
        submitter, headers = self._signer.public_key, stored.headers
        try:
            verify(submitter, stored.payload, headers.get(SIGNATURE_HEADER))
        except ProtocolError as error:
            raise Forged(job, error.reason) from error
        try:
            content_type = codec.content_type_of(headers.get(codec.CONTENT_TYPE_HEADER))
            spec = codec.decode(JobSpec, stored.payload, content_type)
        except ProtocolError as error:
            raise Rejected(error.field, error.reason) from error
        if (spec.id, spec.submitter) != (job, submitter):
            raise Forged(job, f"it is job {spec.id}")
        return spec, stored.payload

    async def _get(self, subject: str) -> StoredMessage | None:
        async def attempt() -> StoredMessage | None:
            return await self._jetstream.get_last(streams.JOBS, subject)

        return await insist(self._connection, subject, attempt, self._timeout_s)

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> bool:
        """Return whether it was stored now; False when the subject held a message already."""

        async def attempt() -> bool:
            try:
                answer(await self._connection.request(subject, payload, headers))
            except JetStreamError as error:
                if is_full(error):
                    raise LedgerFull from error
                if error.err_code == SUBJECT_TAKEN:
                    return False
                raise
            except PayloadTooLargeError as error:
                raise Rejected("payload", str(error)) from error
            return True

        return await insist(self._connection, subject, attempt, self._timeout_s)

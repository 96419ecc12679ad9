"""From requests to jobs of the fleet: stores what they need, and has them accepted."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lender.client.contents import check_is_file
from lender.client.gathering import Gathering, may_go_together
from lender.client.job import Job, Session
from lender.client.job_ids import ENTROPY_BYTES, job_id
from lender.client.one_of_many import Many
from lender.client.seals import Seal
from lender.client.specs import Content, JobRequest, array_of_each, job_spec, payload_of
from lender.protocol.job import Array, BlobRef, JobSpec
from lender.protocol.sealing import KEY_BYTES, purpose


class Submissions:
    """What one client submits."""

    def __init__(
        self,
        session: Session,
        now: Callable[[], float],
        entropy: Callable[[int], bytes],
        *,
        together: bool,
    ) -> None:
        """Prepare.

        Args:
            session: of the client.
            now: the clock, seconds since the epoch.
            entropy: returns so many random bytes.
            together: let those go in one message that may.
        """
        self._session = session
        self._now = now
        self._entropy = entropy
        self._gathering = Gathering(self._submit_each) if together else None

    async def submit(self, request: JobRequest) -> Job:
        """Have a job accepted, by itself or together with others; see `Client.submit`."""
        if self._gathering is not None and may_go_together(request):
            return await self._gathering.submit(request)
        return await self._submit_one(request)

    async def submit_spec(self, spec: JobSpec) -> Job:
        """Have accepted what is known to the last field."""
        payload = payload_of(spec)
        await self._session.news.expect(spec.id)
        try:
            await self._session.ledger.submit(spec.id, payload)
        except BaseException:
            await self._session.news.expect_no_more(spec.id)
            raise
        return Job(self._session, spec, payload)

    def new_id(self, now: float) -> str:
        """Return an id for a job that is submitted now."""
        return job_id(now, self._entropy(ENTROPY_BYTES))

    async def _submit_each(
        self, request: JobRequest, lines: Sequence[Sequence[str]]
    ) -> Sequence[Job]:
        """Have a job accepted with each of these command lines."""
        first, count = lines[0], len(lines)
        if count == 1:
            return [await self._submit_one(replace(request, argv=first))]
        array = Array(count=count, separate=True)
        if all(line == first for line in lines):
            together = replace(request, argv=first, array=array)
        else:
            together = replace(request, argv=(), array=array_of_each(lines, array))
        spec = await self._specify(together)
        payload = payload_of(spec)
        many = Many(Job(self._session, spec, payload))
        handles = [many.one(index) for index in range(count)]
        assert self._gathering is not None, "who asks this"
        await many.listen(self._gathering.note_ended)
        try:
            await self._session.ledger.submit(spec.id, payload)
        except BaseException:
            many.close()
            raise
        return handles

    async def _submit_one(self, request: JobRequest) -> Job:
        return await self.submit_spec(await self._specify(request))

    async def _specify(self, request: JobRequest) -> JobSpec:
        """Store what the job needs, and return its specification."""
        session, now = self._session, self._now()
        submitter = session.signer.public_key
        seal = Seal(self._entropy(KEY_BYTES)) if request.sealed else None
        sealing = None if seal is None else seal.sealed_to(submitter, session.trust.lenders)
        program, of_program = request.program, seal if request.runtime == "python" else None
        return job_spec(
            request,
            job=self.new_id(now),
            submitter=submitter,
            now=now,
            program=None
            if program is None
            else await self._store(of_program, purpose("program"), program),
            inputs={
                name: await self._store(seal, purpose("input", name), one, name)
                for name, one in request.inputs.items()
            },
            sealing=sealing,
        )

    async def _store(
        self, seal: Seal | None, bound_to: bytes, content: Content, name: str = ""
    ) -> BlobRef:
        if isinstance(content, Path):
            check_is_file(content)
        with contextlib.ExitStack() as stack:
            if seal is not None:
                content = await asyncio.to_thread(seal.content, bound_to, content, stack)
            return await self._session.contents.store(content, name)

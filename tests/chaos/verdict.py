"""What is left when the storm is over, held against what was promised."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from chaos.submitters import FAILS_WITH, expected
from deploy.local.fleet import Lender
from lender.client.records import Record, decode_record
from lender.link.api import JetStream
from lender.link.connection import connect
from lender.link.message import StoredMessage
from lender.protocol import streams, subjects
from lender.protocol.codec import decode
from lender.protocol.job import JobSpec
from lender.protocol.result import Chunk, TaskResult, Terminal
from lender.sandbox.processes import cgroup
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

_PAGE = 500
_PAGE_BYTES = 4 << 20


class JobKey(NamedTuple):
    """Whose job it is, and its id."""

    submitter: str
    job: str


@dataclass(slots=True)
class Books:
    """What the streams hold.

    Attributes:
        jobs: every job that JOBS took.
        terminals: the last words on each.
        results: the results of each, from chunks and last words.
        ran: whose results were committed: lender, and the lease (of an array) or the job.
    """

    jobs: dict[JobKey, JobSpec] = field(default_factory=dict)
    terminals: dict[JobKey, list[Terminal]] = field(default_factory=dict)
    results: dict[JobKey, list[TaskResult]] = field(default_factory=dict)
    ran: set[tuple[str, str]] = field(default_factory=set)

    @property
    def states(self) -> Counter[str]:
        return Counter(one.state for words in self.terminals.values() for one in words)


async def read_books(url: str) -> Books:
    """Read JOBS and RESULTS from their beginning."""
    books = Books()
    async with await connect(url, name="verdict", timeout_s=30) as connection:
        jetstream = JetStream(connection)
        for message in await _all(jetstream, streams.JOBS):
            key = _key(message.subject)
            if message.subject.startswith("submit."):
                books.jobs[key] = decode(JobSpec, message.payload)
        for message in await _all(jetstream, streams.RESULTS):
            if not message.subject.startswith(subjects.TERM_PREFIX):
                record = decode_record(message.subject, message.headers, message.payload)
                _enter(books, _key(message.subject), record)
    return books


async def count_of_results(url: str) -> int:
    """How many records RESULTS holds now."""
    async with await connect(url, name="verdict", timeout_s=30) as connection:
        return (await JetStream(connection).stream_state(streams.RESULTS)).messages


def _enter(books: Books, key: JobKey, record: Record) -> None:
    results = books.results.setdefault(key, [])
    if isinstance(record, Chunk):
        results += record.results
        books.ran.add((record.lender, record.lease))
        return
    books.terminals.setdefault(key, []).append(record)
    if record.result is not None:
        results.append(record.result)
        books.ran.add((record.lender or "", record.job))


async def _all(jetstream: JetStream, stream: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while True:
        first = found[-1].sequence + 1 if found else 1
        page = await jetstream.get_page(stream, first, _PAGE, max_bytes=_PAGE_BYTES)
        found += page.messages
        if not page.messages or not page.num_pending:
            return found


def _key(subject: str) -> JobKey:
    parsed = subjects.parse_job_subject(subject)
    return JobKey(parsed.submitter, parsed.job)


def faults_of_results(books: Books, accepted: Iterable[JobKey]) -> list[str]:
    """Whatever is not: each accepted task in exactly one result, with the right value."""
    found = [f"job {one.job} was accepted, and is gone" for one in set(accepted) - set(books.jobs)]
    strange = books.terminals.keys() - books.jobs.keys()
    found += [f"job {one.job} ended, and was never asked for" for one in strange]
    for key, spec in books.jobs.items():
        words = books.terminals.get(key, [])
        if len(words) != 1:
            found.append(f"job {key.job} ({spec.name}) has {len(words)} last words")
            continue
        found += [
            f"job {key.job} ({spec.name}) {fault}"
            for fault in _faults_of_job(spec, words[0], books.results.get(key, []))
        ]
    return found


def _faults_of_job(spec: JobSpec, last: Terminal, results: list[TaskResult]) -> Iterator[str]:
    count = Counter(one.task for one in results)
    if twice := [task for task, times in count.items() if times > 1]:
        yield f"has two results of tasks {twice[:5]}"
    for one in results:
        value = expected(spec, one.task)
        right = one.value == value if value is not None else one.exit_code == FAILS_WITH
        if not right or (one.state == "succeeded") != (value is not None):
            yield f"has a wrong result of task {one.task}: {one}"
    if spec.name.startswith("cancelled"):
        if last.state not in ("cancelled", "succeeded"):
            yield f"ended as {last.state}"
        return
    failing = sum(expected(spec, task) is None for task in range(spec.task_count))
    if last.state != ("failed" if failing else "succeeded"):
        yield f"ended as {last.state}: {last.reason}"
    told = (last.tasks_succeeded, last.tasks_failed, last.tasks_total)
    if told != (spec.task_count - failing, failing, spec.task_count):
        yield f"counts {told}"
    if missing := sorted(set(range(spec.task_count)) - count.keys()):
        yield f"has no result of tasks {missing[:5]}"


def faults_of_receipts(books: Books, lenders: Iterable[Lender]) -> list[str]:
    """Results whose lender has no receipt of having run them."""
    known: set[tuple[str, str]] = set()
    for lender in lenders:
        key = _public_key(lender)
        for one in ReceiptLog(StateFolder(lender.state).receipts).read():
            known |= {(key, str(one.get("lease"))), (key, str(one.get("job")))}
    return [
        f"{what} has results of {by[:8]}, which has no receipt" for by, what in books.ran - known
    ]


def outcomes(lenders: Iterable[Lender]) -> Counter[str]:
    """How the attempts ended, by their receipts."""
    logs = (ReceiptLog(StateFolder(lender.state).receipts) for lender in lenders)
    return Counter(str(one.get("outcome", one.get("kind"))) for log in logs for one in log.read())


def _public_key(lender: Lender) -> str:
    """What it is called on the wire; it must serve its owner."""
    return str(lender.status()["lender"])


async def faults_of_logs(lenders: Iterable[Lender]) -> list[str]:
    """What each owner's own proof of the log of receipts finds."""

    def prove(lender: Lender) -> list[str]:
        said = lender.owner("log", "verify", "--json", within_s=60.0)
        try:
            findings = json.loads(said.stdout)["findings"]
        except (ValueError, KeyError):
            return [f"{lender.name}: its log can't be proven: {said.stderr}"]
        return [f"{lender.name}: its log: {one}" for one in findings]

    proofs = await asyncio.gather(*(asyncio.to_thread(prove, one) for one in lenders))
    return [fault for proof in proofs for fault in proof]


def leftovers(token: str, lenders: Mapping[str, Lender]) -> list[str]:
    """What is still there of a fleet that was stopped: processes, folders, cgroups."""
    found = [f"process {pid} is left: {what}" for pid, what in _processes(token)]
    top = cgroup.mount()
    for name, lender in lenders.items():
        state = StateFolder(lender.state)
        found += [f"{name}: {path.name} is left" for path in state.scratch.iterdir()]
        found += [f"{name}: a record is left: {path.name}" for path in state.attempts.iterdir()]
        if top is not None:
            jobs = top.rglob(f"{cgroup.name_for(lender.state)}/jobs/*/")
            found += [f"{name}: cgroup {path} is left" for path in jobs]
    return found


def _processes(token: str) -> Iterator[tuple[int, str]]:
    marks = (f"LENDER_CHAOS={token}".encode(), token.encode())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if marks[0] in (entry / "environ").read_bytes() or marks[1] in command:
                yield int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")

"""What ten million tasks of one array cost the broker's core, and a submitter that collects them.

No lenders: their reports are made up here, encoded as they are on the wire. So what is measured is
all that the core does from the submission to the last commit: leases, reports, records; then the
replay of those. And what a client does with the chunks. Times are of the processor; memory is what
the process has taken more than before, the summaries of the records for the replay included.

    python bench/arrays.py [--tasks 10000000] [--slots 64]

Writes build/bench-arrays.json.
"""

import argparse
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

import msgpack
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from broker.core.broker import Broker
from broker.core.effects import Commit, FeedWork, Record
from broker.core.events import (
    Committed,
    DoneReported,
    Event,
    JobReplayed,
    JobSubmitted,
    LeaseFed,
    OfferReceived,
    ReplayCompleted,
    ResultReplayed,
)
from lender.client.collector import Collector
from lender.client.records import decode_record
from lender.protocol import bounds, subjects
from lender.protocol.classes import WorkClass
from lender.protocol.codec import encode
from lender.protocol.job import Array, JobSpec
from lender.protocol.lease import Lease, Offer
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy

START = 1_000_000.0
TASK_S = 0.00005
LENDER_SLOTS = 8
OUT = Path(__file__).resolve().parents[1] / "build"


class Bench:
    """A broker, lenders that are nothing but their reports, and what RESULTS would hold."""

    def __init__(self, tasks: int, slots: int) -> None:
        signer = Signer(seed_from_entropy(bytes(32)))
        self.spec = JobSpec(
            v=1,
            id="job-0001",
            submitter=signer.public_key,
            workload="command",
            runtime="process",
            argv=("true",),
            array=Array(count=tasks),
            created_at=START,
            not_after=START + 86_400.0,
        )
        payload = encode(self.spec)
        subject = subjects.submit(signer.public_key, self.spec.id)
        self.submission = (subject, {SIGNATURE_HEADER: signer.sign(payload)}, payload)
        self.submitters = frozenset((signer.public_key,))
        self.lenders = [
            Signer(seed_from_entropy(number.to_bytes(32))).public_key
            for number in range(1, 1 + slots // LENDER_SLOTS)
        ]
        self.queue: deque[Lease] = deque()
        self.summaries: list[tuple[str, Mapping[str, str]]] = []
        """Subjects and headers of what RESULTS would hold."""
        self.stored_bytes = 0
        self.collector = Collector(tasks)
        self.run_s = self.collect_s = 0.0
        self.sequences = count(1)
        self.leases: list[int] = []
        self.broker = self._broker()
        self.broker.handle(START, ReplayCompleted())

    def _broker(self) -> Broker:
        ids = count()
        return Broker(lambda: f"{next(ids):022d}", self.submitters)

    def run(self) -> None:
        """Drive the array to its end."""
        self.handle(JobSubmitted(*self.submission))
        for lender in self.lenders:
            self.handle(OfferReceived(lender, self._offer(lender)))
        reports = count()
        while self.queue:
            lease = self.queue.popleft()
            self.leases.append(lease.task_count)
            for payload in _reports(lease):
                lender = self.lenders[hash(lease.lease) % len(self.lenders)]
                self.handle(DoneReported(lender, payload, f"_INBOX.{next(reports)}"))
        assert not list(self.broker.state.jobs)
        assert self.collector.complete

    def handle(self, event: Event) -> None:
        """Have the broker handle an event, and carry out what it wants."""
        begun = time.process_time()
        effects = self.broker.handle(START, event)
        self.run_s += time.process_time() - begun
        for effect in effects:
            match effect:
                case Commit():
                    self._collect(effect.records)
                    self.handle(Committed(effect.token))
                case FeedWork():
                    self.queue.append(effect.lease)
                    self.handle(LeaseFed(effect.lease_id, next(self.sequences)))
                case _:
                    pass

    def replay(self) -> float:
        """Start another broker on all but the last word; returns the seconds."""
        broker = self._broker()
        begun = time.process_time()
        for summary in self.summaries[:-1]:
            broker.handle(START, ResultReplayed(*summary))
        broker.handle(START, JobReplayed(*self.submission))
        effects = broker.handle(START, ReplayCompleted())
        took_s = time.process_time() - begun
        assert any(isinstance(one, Commit) for one in effects), "it ends what has all its results"
        return took_s

    def _collect(self, records: Iterable[Record]) -> None:
        """Read records as a client does."""
        begun = time.process_time()
        for one in records:
            self.collector.take(decode_record(one.subject, one.headers, one.payload))
            self.summaries.append((one.subject, one.headers))
            self.stored_bytes += len(one.payload)
        self.collect_s += time.process_time() - begun

    def _offer(self, lender: str) -> bytes:
        offer = Offer(
            lender=lender,
            name="machine",
            phase="lending",
            slots_total=LENDER_SLOTS,
            slots_free=LENDER_SLOTS,
            cpu_free=float(LENDER_SLOTS),
            memory_free_bytes=1 << 40,
            arch="x86_64",
            os="linux",
            runtimes=("process",),
            classes=(WorkClass.of(self.spec).token,),
            consent_digest="",
        )
        return encode(offer)


def _reports(lease: Lease) -> Iterable[bytes]:
    """Return what a lender would send of a lease: parts of full size, the last one final."""
    tasks = lease.tasks()
    for at in range(0, len(tasks), bounds.CHUNK_RESULTS_MAX):
        part = tasks[at : at + bounds.CHUNK_RESULTS_MAX]
        done = {
            "v": 1,
            "lease": lease.lease,
            "job": lease.job,
            "submitter": lease.submitter,
            "results": [
                {"task": task, "state": "succeeded", "exit_code": 0, "duration_s": TASK_S}
                for task in part
            ],
            "final": at + len(part) == len(tasks),
        }
        yield msgpack.packb(done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=bounds.ARRAY_COUNT_MAX)
    parser.add_argument("--slots", type=int, default=64)
    args = parser.parse_args()
    process = psutil.Process()
    bench = Bench(args.tasks, args.slots)
    gc.collect()
    before = process.memory_info().rss
    bench.run()
    grown = process.memory_info().rss - before
    replay_s = bench.replay()
    row = {
        "tasks": args.tasks,
        "leases": len(bench.leases),
        "tasks_in_largest_lease": max(bench.leases),
        "records": len(bench.summaries),
        "records_mib": round(bench.stored_bytes / 2**20),
        "core_tasks_per_s": round(args.tasks / bench.run_s),
        "core_us_a_task": round(1e6 * bench.run_s / args.tasks, 2),
        "client_us_a_task": round(1e6 * bench.collect_s / args.tasks, 2),
        "memory_grown_mib": round(grown / 2**20),
        "replay_s": round(replay_s, 2),
    }
    print(json.dumps(row, indent=2))
    OUT.mkdir(exist_ok=True)
    (OUT / "bench-arrays.json").write_text(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

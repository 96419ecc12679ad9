"""What a placement costs the broker's core, by queue, fleet, groups and submitters.

A placement is a lease that leaves the core for a work queue. "handle" is all that `Broker.handle`
does from a lender's encoded offer to the leases that are made for it; "matching" is the feeding
alone, from the moment that the lender is known to have room. Each job is of one task, which is
the hardest case: a task is a lease, and each lease has to find its job. Only the figures of arrays
are of leases that hold many tasks. What follows a lease, that the queue has stored it, that it is
held and reported, is in the last figure alone.

The queue is put together without the submitters' signatures, whose check costs more than the
rest and is no matching. Garbage that was made before a measurement is not looked at during it.
Times are of the processor, so that whatever else runs on the machine is not counted.

    python bench/matching.py [--quick] [--profile]

Writes build/bench-matching.json and build/bench-matching.svg.
"""

import argparse
import cProfile
import gc
import json
import math
import os
import platform
import pstats
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path

from charts import Line, Panel, write_svg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from broker.core.broker import Broker
from broker.core.containers.ranges import RangeSet
from broker.core.effects import Commit, Effect, FeedWork
from broker.core.events import (
    Committed,
    DoneReported,
    OfferReceived,
    ReplayCompleted,
    TimePassed,
)
from broker.core.intake.admission import Admission
from broker.core.jobs.job import FIRST_STEP, Job
from broker.core.jobs.lifecycle import take_up
from broker.core.leasing.feed import feed
from broker.core.leasing.holding import lose
from lender.protocol.classes import WorkClass
from lender.protocol.codec import MSGPACK, encode
from lender.protocol.job import Array, JobSpec, Limits, Os, Requires
from lender.protocol.lease import Done, Lease, Offer
from lender.protocol.result import TaskResult
from lender.protocol.signature import Signer, seed_from_entropy

START = 1_000_000.0
SLOTS = 8
TASK_S = 0.01
"""Of an array, as measured."""
PLACEMENTS = 20_000
TURNS = 3
WANTED_PER_S = 50_000
OUT = Path(__file__).resolve().parents[1] / "build"


@dataclass(frozen=True)
class Row:
    """One measurement, in microseconds a placement.

    The mean of the best of a few turns; the median of single events, each of which brings some 16
    placements; and, as "calm", their tenth percentile, which is what it costs while nobody else is
    at the processor and its caches.
    """

    jobs: int
    lenders: int
    groups: int
    submitters: int
    handle_us: float
    handle_median_us: float
    handle_calm_us: float
    matching_us: float
    matching_median_us: float
    matching_calm_us: float


class Bench:
    """A broker with a queue that is as long again after each measurement."""

    def __init__(
        self, jobs: int, groups: int = 1, submitters: int = 1, os: Os = "any", tasks: int = 1
    ) -> None:
        self.jobs, self.groups, self.submitters, self.tasks = jobs, groups, submitters, tasks
        ids = count()
        self.broker = Broker(lambda: f"{next(ids):022d}")
        self.broker.handle(START, ReplayCompleted())
        self.now = START
        self._leased: list[Job] = []
        self._specs = [_spec(_signer(number % submitters), number) for number in range(groups)]
        self._payloads = [encode(spec) for spec in self._specs]
        self.classes = tuple(sorted({WorkClass.of(spec).token for spec in self._specs}))
        for number in range(jobs):
            self.broker.state.enqueue(self._job(number, os))
        self.broker.handle(START, TimePassed())
        gc.collect()
        gc.freeze()

    def _job(self, number: int, os: Os) -> Job:
        which = number % self.groups
        spec = self._specs[which].model_copy(
            update={
                "id": f"job-{number:08d}",
                "created_at": START + number * 1e-3,
                "requires": Requires(os=os),
                "array": Array(count=self.tasks) if self.tasks > 1 else None,
            }
        )
        job = take_up(
            self.broker.state,
            Admission(spec, self._payloads[which], MSGPACK, "s" * 86, verified=True),
        )
        job.begin(self.now, FIRST_STEP, RangeSet([(0, self.tasks)]))
        if self.tasks > 1:
            job.measure(TASK_S)
        return job

    def measure(self, lenders: int) -> Row:
        """Place what the lenders have room for, some thousand times."""
        handle = [self.turn(lenders, whole=True) for _ in range(TURNS)]
        matching = [self.turn(lenders, whole=False) for _ in range(TURNS)]
        figures = (self.jobs, lenders, self.groups, self.submitters)
        return Row(*figures, *_figures_us(handle), *_figures_us(matching))

    def arrive(self, lenders: int) -> float:
        """Return the seconds for a job that comes while all lenders have room: queued and placed.

        What waits already waits for machines of another system.
        """
        state, took_s = self.broker.state, 0.0
        for offer in self._offers(lenders, slots=4096):
            self.broker.handle(self.now, OfferReceived(offer.lender, encode(offer)))
        jobs = [self._job(number, os="any") for number in range(self.jobs, self.jobs + PLACEMENTS)]
        for job in jobs:
            start = time.process_time()
            state.enqueue(job)
            feed(state, self.now)
            took_s += time.process_time() - start
        assert len(state.outbox.drain()) >= PLACEMENTS
        return took_s / PLACEMENTS

    def hand_out(self, lenders: int) -> tuple[float, int, int]:
        """Return the seconds in which all tasks are handed out, in how many leases, and tasks."""
        took_s, leases = 0.0, 0
        for offer in self._offers(lenders, slots=0):
            self.broker.handle(self.now, OfferReceived(offer.lender, encode(offer)))
        for slots in count(SLOTS, SLOTS):
            batch = [OfferReceived(one.lender, encode(one)) for one in self._offers(lenders, slots)]
            start = time.process_time()
            effects = [one for event in batch for one in self.broker.handle(self.now, event)]
            took_s += time.process_time() - start
            leases += sum(isinstance(one, FeedWork) for one in effects)
            if not self.broker.state.backlog.turns.classes:
                tasks = sum(one.task_count for one in self.broker.state.leases)
                return took_s, leases, tasks
        raise AssertionError("some lender has room")

    def cycle(self, lenders: int) -> float:
        """Return the seconds from a report to its commit and to the lease that follows it."""
        fed: deque[tuple[str, FeedWork]] = deque()
        handle, now = self.broker.handle, self.now
        for offer in self._offers(lenders, SLOTS):
            for effect in handle(now, OfferReceived(offer.lender, encode(offer))):
                if isinstance(effect, FeedWork):
                    fed.append((offer.lender, effect))
        reports = min(PLACEMENTS, self.jobs // 2)
        took_s = 0.0
        for _ in range(reports):
            lender, work = fed.popleft()
            event = DoneReported(lender, encode(_done(work.lease)), "_INBOX.x")
            start = time.process_time()
            for effect in handle(now, event):
                if isinstance(effect, FeedWork):
                    fed.append((lender, effect))
                elif isinstance(effect, Commit):
                    handle(now, Committed(effect.token))
            took_s += time.process_time() - start
        return took_s / reports

    def turn(self, lenders: int, *, whole: bool) -> list[tuple[float, int]]:
        """Return the seconds that each event took, and how many placements it brought."""
        wanted = min(PLACEMENTS, max(1, self.jobs // 2))
        events: list[tuple[float, int]] = []
        # Everybody is there, and busy, before the first has room.
        for offer in self._offers(lenders, slots=0):
            self.broker.handle(self.now, OfferReceived(offer.lender, encode(offer)))
        offers = (offer for slots in count(SLOTS, SLOTS) for offer in self._offers(lenders, slots))
        while sum(placed for _, placed in events) < wanted:
            batch = list(islice(offers, 64))
            events += self._handle(batch) if whole else self._match(batch)
        self._take_back(lenders)
        return events

    def _handle(self, batch: Iterable[Offer]) -> Iterator[tuple[float, int]]:
        handle, now = self.broker.handle, self.now
        for event in [OfferReceived(offer.lender, encode(offer)) for offer in batch]:
            start = time.process_time()
            effects = handle(now, event)
            took_s = time.process_time() - start
            yield took_s, self._note(effects)

    def _match(self, batch: Iterable[Offer]) -> Iterator[tuple[float, int]]:
        state, now = self.broker.state, self.now
        for offer in batch:
            state.fleet.hear(now, offer, ())
            start = time.process_time()
            feed(state, now)
            took_s = time.process_time() - start
            yield took_s, self._note(state.outbox.drain())

    def _note(self, effects: Iterable[Effect]) -> int:
        state = self.broker.state
        fed = [state.leases[one.lease_id] for one in effects if isinstance(one, FeedWork)]
        self._leased += [state.jobs[lease.job] for lease in fed]
        return len(fed)

    def _offers(self, lenders: int, slots: int) -> Iterator[Offer]:
        template = _offer(self.classes, slots)
        for number in range(lenders):
            yield template.model_copy(update={"lender": _signer(number).public_key})

    def _take_back(self, lenders: int) -> None:
        """Let all be gone, and what was leased wait again."""
        for offer in self._offers(lenders, slots=0):
            gone = offer.model_copy(update={"phase": "offline"})
            self.broker.handle(self.now, OfferReceived(offer.lender, encode(gone)))
        state = self.broker.state
        for job in self._leased:
            for lease_id in list(job.leases):
                lose(state, state.leases[lease_id])
        assert len(state.leases) == 0
        self._leased.clear()
        self.now += 60.0
        self.broker.handle(self.now, TimePassed())


def _figures_us(turns: list[list[tuple[float, int]]]) -> tuple[float, float, float]:
    """Return the mean of the best turn, and the median and tenth percentile of all events."""
    best_s = min(sum(s for s, _ in turn) / sum(n for _, n in turn) for turn in turns)
    single = sorted(s / n for turn in turns for s, n in turn if n)
    return best_s * 1e6, single[len(single) // 2] * 1e6, single[len(single) // 10] * 1e6


_SIGNERS: dict[int, Signer] = {}


def _signer(number: int) -> Signer:
    if number not in _SIGNERS:
        _SIGNERS[number] = Signer(seed_from_entropy(number.to_bytes(32, "big")))
    return _SIGNERS[number]


def _spec(signer: Signer, group: int) -> JobSpec:
    return JobSpec(
        v=1,
        id="job-00000000",
        submitter=signer.public_key,
        workload="command",
        runtime="process",
        argv=("true",),
        limits=Limits(memory_bytes=(64 << 20) + group),
        created_at=START,
        not_after=START + 500_000.0,
    )


def _done(lease: Lease) -> Done:
    result = TaskResult(task=0, state="succeeded", exit_code=0, duration_s=1.0)
    return Done(
        lease=lease.lease,
        job=lease.job,
        submitter=lease.submitter,
        results=(result,),
        final=True,
    )


def _offer(classes: tuple[str, ...], slots: int) -> Offer:
    return Offer(
        lender=_signer(0).public_key,
        name="machine",
        phase="lending",
        slots_total=max(SLOTS, slots),
        slots_free=slots,
        cpu_free=float(slots),
        memory_free_bytes=1 << 40,
        arch="x86_64",
        os="linux",
        runtimes=("process",),
        classes=classes,
        consent_digest="",
    )


def grows(points: list[tuple[int, float]]) -> str:
    """Say how µs grow with n: the least squares of `a + b log2 n`, and of `c n^d`."""
    logs = [math.log2(n) for n, _ in points]
    base, step = _line(logs, [us for _, us in points])
    _, power = _line(logs, [math.log2(us) for _, us in points])
    return f"{base:.2f} + {step:.3f} log2(n) µs; as a power n^{power:.3f}"


def _line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return mean_y - slope * mean_x, slope


def show(row: Row) -> None:
    print(
        f"{row.jobs:>9,} {row.lenders:>8,} {row.groups:>7,} {row.submitters:>11,}"
        f" {row.handle_us:>10.1f} {row.handle_median_us:>6.1f} {row.handle_calm_us:>6.1f}"
        f" {1e6 / row.handle_us:>10,.0f}"
        f" {row.matching_us:>12.1f} {row.matching_median_us:>6.1f} {row.matching_calm_us:>6.1f}"
        f" {1e6 / row.matching_us:>10,.0f}",
        flush=True,
    )


def sweep(*, quick: bool) -> list[Row]:
    """Measure by queue and fleet, then by groups and submitters."""
    print(
        f"{'jobs':>9} {'lenders':>8} {'groups':>7} {'submitters':>11}"
        f" {'handle µs':>10} {'median':>6} {'calm':>6} {'a second':>10}"
        f" {'matching µs':>12} {'median':>6} {'calm':>6} {'a second':>10}"
    )
    rows = []
    for jobs in (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
        bench = Bench(jobs, groups=10, submitters=10)
        for lenders in (10, 100, 1_000) if quick else (10, 100, 1_000, 10_000):
            rows.append(bench.measure(lenders))
            show(rows[-1])
        del bench
        gc.unfreeze()
    for groups, submitters in ((1, 1), (100, 1), (1_000, 1), (100, 100), (1_000, 100)):
        bench = Bench(20_000 if quick else 100_000, groups, submitters)
        rows.append(bench.measure(1_000))
        show(rows[-1])
        del bench
        gc.unfreeze()
    return rows


def others(*, quick: bool) -> None:
    """Measure what else a placement is a part of."""
    for lenders in (10, 100, 1_000) if quick else (10, 100, 1_000, 10_000):
        bench = Bench(10_000, groups=10, submitters=10, os="macos")
        print(f"a job comes, {lenders:>6,} lenders have room: {1e6 * bench.arrive(lenders):.1f} µs")
        gc.unfreeze()
    bench = Bench(10, groups=10, submitters=10, tasks=100_000)
    took_s, leases, placed = bench.hand_out(1_000)
    print(
        f"10 arrays of {bench.tasks:,} tasks of {1e3 * TASK_S:g} ms, 1,000 lenders:"
        f" {1e6 * took_s / leases:.1f} µs a lease, {1e6 * took_s / placed:.2f} µs a task"
        f" ({placed / took_s:,.0f} tasks/s in {leases:,} leases)"
    )
    gc.unfreeze()
    for jobs in (10_000, 100_000):
        bench = Bench(jobs, groups=10, submitters=10)
        took_us = 1e6 * bench.cycle(1_000)
        print(f"report in, commit and next lease out, {jobs:>7,} jobs wait: {took_us:.1f} µs")
        gc.unfreeze()


def report(rows: list[Row]) -> None:
    """Print how the cost grows, and draw it."""
    grid = [row for row in rows if (row.groups, row.submitters) == (10, 10)]
    queues, fleets = sorted({row.jobs for row in grid}), sorted({row.lenders for row in grid})
    by_queue, by_fleet = [], []
    for lenders in fleets:
        points = [(row.jobs, row.matching_calm_us) for row in grid if row.lenders == lenders]
        print(f"matching, {lenders:>9,} lenders, by the queue: {grows(points)}")
        by_queue.append(Line(f"{lenders:,} lenders", points))
    for jobs in queues:
        points = [(row.lenders, row.matching_calm_us) for row in grid if row.jobs == jobs]
        print(f"matching, {jobs:>9,} jobs, by the fleet:    {grows(points)}")
        by_fleet.append(Line(f"{jobs:,} jobs", points))
    for what, figures in (
        ("the mean of the best turn", [(row.handle_us, row.matching_us) for row in grid]),
        ("the median", [(row.handle_median_us, row.matching_median_us) for row in grid]),
        ("calm", [(row.handle_calm_us, row.matching_calm_us) for row in grid]),
    ):
        by_handle, by_matching = (1e6 / max(one) for one in zip(*figures, strict=True))
        print(
            f"at least {by_handle:,.0f} placements/s by handle, {by_matching:,.0f} by matching,"
            f" by {what}; wanted {WANTED_PER_S:,}"
        )
    OUT.mkdir(exist_ok=True)
    (OUT / "bench-matching.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    write_svg(
        OUT / "bench-matching.svg",
        [
            Panel("µs a placement by queued jobs", by_queue),
            Panel("µs a placement by lenders", by_fleet),
        ],
    )
    print(f"wrote {OUT / 'bench-matching.svg'}")


def profile() -> None:
    """Print where the time of `handle` goes."""
    bench = Bench(100_000, groups=10, submitters=10)
    profiler = cProfile.Profile()
    profiler.enable()
    bench.turn(1_000, whole=True)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 jobs, 1,000 lenders")
    parser.add_argument("--profile", action="store_true", help="show where the time goes, only")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {platform.platform()}, load {load:.2f}")
    if args.profile:
        profile()
    else:
        report(sweep(quick=args.quick))
        others(quick=args.quick)


if __name__ == "__main__":
    main()

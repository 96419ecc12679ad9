"""Run seeds: `python -m sim.run --seed 7 --trace`, `python -m sim.run --seeds 1..10000`."""

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from sim.planted import PLANTED, planted
from sim.scenario import scenario
from sim.shrink import shrink
from sim.simulation import Outcome, run

_TAIL = 40
_TELL_S = 15.0
_GARBAGE = 50_000
"""Objects more than there were, until garbage is looked for: a seed leaves next to none."""


class Soak:
    """What came of the seeds so far."""

    def __init__(self, seeds: range) -> None:
        self.failures: list[Outcome] = []
        self.digest = ""
        self._seeds = seeds
        self._done = self._steps = 0
        self._stats = Counter[str]()
        self._began = self._told = time.monotonic()

    def take(self, outcome: Outcome) -> None:
        """Count one; say how far it is now and then, and at once if it failed."""
        self._done += 1
        self._steps += outcome.steps
        self._stats.update(outcome.stats)
        self.digest = outcome.digest
        if outcome.broken:
            self.failures.append(outcome)
            _say(f"seed {outcome.scenario.seed}: {outcome.text}")
        now = time.monotonic()
        if now >= self._told + _TELL_S:
            self._told, pace = now, self._done / (now - self._began)
            left_s = (len(self._seeds) - self._done) / pace
            _say(
                f"{self._done} of {len(self._seeds)} seeds, {len(self.failures)} failed,"
                f" {60 * pace:.0f} seeds/min, {left_s / 60:.1f} min more"
            )

    def tell(self) -> None:
        """Say what all of them come to."""
        took_s = time.monotonic() - self._began
        _say(
            f"{self._done} seeds, {len(self.failures)} failed, {self._steps} steps in {took_s:.1f}"
            f" s ({self._steps / took_s:.0f}/s, {60 * self._done / took_s:.0f} seeds/min)"
        )
        for what, times in sorted(self._stats.items()):
            _say(f"  {times:8d} {what}")


def main() -> int:
    """Run what the command line asks for; 1 if any seed fails."""
    arguments = _parse()
    first, _, last = (arguments.seeds or str(arguments.seed)).partition("..")
    seeds = range(int(first), int(last or first) + 1)
    one = partial(_run, lenders=arguments.lenders, bug=arguments.planted)
    if arguments.trace:
        with planted(arguments.planted) if arguments.planted else nullcontext():
            run(scenario(seeds[0], arguments.lenders), tell=_say)
        return 0
    soak = Soak(seeds)
    try:
        for outcome in _outcomes(one, seeds, arguments.processes):
            soak.take(outcome)
            if len(soak.failures) == arguments.failures:
                break
    except KeyboardInterrupt:
        _say("interrupted")
    soak.tell()
    failures = soak.failures
    # Of those that broke the same promise the first alone is shortened.
    for failure in {one.broken: one for one in reversed(failures)}.values():
        _say(describe(failure, arguments.planted))
    if failures:
        _say(f"failed: {' '.join(str(one.scenario.seed) for one in failures)}")
    elif len(seeds) == 1:
        _say(f"digest {soak.digest}")
    return 1 if failures else 0


def describe(failure: Outcome, bug: str | None = None) -> str:
    """Return the seed, and the shortest trace that was found."""
    with planted(bug) if bug else nullcontext():
        shrunk = shrink(failure, run)
    shortest, plan = shrunk.outcome, shrunk.outcome.scenario
    lines = [
        f"seed {failure.scenario.seed}: {failure.text}",
        f"shortest of {shrunk.runs} shorter runs: {shortest.text}",
        f"  {shortest.steps} steps, {shortest.seconds:.1f} s, standby: {plan.standby}",
        *(f"  lender {number}: {one}" for number, one in enumerate(plan.lenders)),
        *(f"  {one}" for one in (*plan.jobs, *plan.faults, *plan.verbs)),
        f"the last {min(_TAIL, len(shortest.tail))} lines of its trace:",
        *(f"  {line}" for line in shortest.tail[-_TAIL:]),
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(seed: int, lenders: int | None, bug: str | None) -> Outcome:
    gc.set_threshold(_GARBAGE)
    with planted(bug) if bug else nullcontext():
        return run(scenario(seed, lenders))


def _outcomes(one: partial[Outcome], seeds: range, processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(one, seeds, chunksize=5)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sim.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", help="first..last")
    parser.add_argument("--lenders", type=int, help="machines (default: chosen by the seed)")
    parser.add_argument("--trace", action="store_true", help="print every step of one seed")
    parser.add_argument("--planted", choices=tuple(PLANTED), help="with this bug")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--failures", type=int, help="give up after so many (default: never)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

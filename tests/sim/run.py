"""Run seeds: `python -m sim.run --seed 7 --trace`, `python -m sim.run --seeds 1..10000`."""

import argparse
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
    began, steps, stats = time.monotonic(), 0, Counter[str]()
    failures: list[Outcome] = []
    done = 0
    for outcome in _outcomes(one, seeds, arguments.processes):
        done, steps = done + 1, steps + outcome.steps
        stats.update(outcome.stats)
        if done % 500 == 0:
            _say(f"{done} seeds, {len(failures)} failed")
        if outcome.broken:
            failures.append(outcome)
            _say(f"seed {outcome.scenario.seed}: {outcome.text}")
            if len(failures) >= arguments.failures:
                break
    took_s = time.monotonic() - began
    _say(
        f"{done} seeds, {len(failures)} failed, {steps} steps in {took_s:.1f} s"
        f" ({steps / took_s:.0f}/s, {60 * done / took_s:.0f} seeds/min)"
    )
    for what, times in sorted(stats.items()):
        _say(f"  {times:8d} {what}")
    if failures:
        _say(describe(failures[0], arguments.planted))
    elif len(seeds) == 1:
        _say(f"digest {outcome.digest}")
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
    parser.add_argument("--failures", type=int, default=10, help="give up after so many")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

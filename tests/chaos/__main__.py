"""Runs the chaos test: `python -m chaos --minutes 10 --seed 7`."""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from chaos import verdict
from chaos.machines import SUBMITTERS, Machines
from chaos.owners import Owner
from chaos.schedule import schedule
from chaos.storm import Storm
from chaos.submitters import Submitting
from chaos.verdict import Books, JobKey

STALLED_S = 120.0
"""After the last fault: no result for so long, and what is left is not waited for."""

_PROGRESS_S = 15.0
_FAULTS_SHOWN_MAX = 40
_BOB_EVERY = 3
"""Only every so many owners trust bob."""


class Run:
    """One run, from empty folders to the verdict."""

    def __init__(self, seed: int, duration_s: float, lenders: int) -> None:
        self._seed = seed
        self._duration_s = duration_s
        self._begun = time.monotonic()
        self._token = secrets.token_hex(6)
        folder = Path(tempfile.mkdtemp(prefix=f"lender-chaos-{self._token}-"))
        folder.chmod(0o711)
        self.machines = Machines(folder, random.Random(f"{seed} weather"), self._token, lenders)
        self._owners: dict[str, Owner] = {}
        self._submitting: dict[str, Submitting] = {}
        self._storm: Storm

    def say(self, line: str) -> None:
        """Print a line with the seconds since the beginning."""
        sys.stdout.write(f"{time.monotonic() - self._begun:7.1f}  {line}\n")
        sys.stdout.flush()

    async def faults(self) -> list[str]:
        """Run it all; returns what was not as promised. Nothing runs afterwards."""
        try:
            await self._set_up()
            await self._weather_the_storm()
            found, books = await self._judge()
        finally:
            await self.machines.close()
        found += verdict.leftovers(self._token, self.machines.lenders)
        self._table(books)
        return found

    async def _set_up(self) -> None:
        machines = self.machines
        self.say(f"seed {self._seed}, {self._duration_s:.0f} s, {machines.folder}")
        await machines.start_core()
        self.say("a cluster of three, and two brokers")
        for number, (name, lender) in enumerate(machines.lenders.items()):
            self._owners[name] = Owner(lender, machines.keys)
            await self._owners[name].grant("alice")
            if number % _BOB_EVERY == 0:
                await self._owners[name].grant("bob")
        await machines.start_lenders()
        self.say(f"{len(machines.lenders)} lenders lend")

    async def _weather_the_storm(self) -> None:
        chance = random.Random(f"{self._seed} storm")
        self._storm = Storm(self.machines, self._owners, chance, self.say)
        for name in SUBMITTERS:
            line, key = self.machines.lines[name], self.machines.key_file(name)
            chance = random.Random(f"{self._seed} {name}")
            self._submitting[name] = Submitting(line.url, key, chance, self._token)
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(self.machines.keep_running()),
                tasks.create_task(self._tell_progress()),
            ]
            asking = [tasks.create_task(one.run()) for one in self._submitting.values()]
            await self._storm.run(schedule(self._seed, self._duration_s, self.machines.cast))
            self.say("the storm is over")
            for one in self._submitting.values():
                one.stop()
            await self.machines.heal()
            self.say("all is whole again, and lends")
            await self._wait_for(asking)
            for helper in helpers:
                helper.cancel()

    async def _wait_for(self, asking: Sequence[asyncio.Task[None]]) -> None:
        """Wait until every job has ended, as long as there are results at all."""
        results = -1
        while left := [one for one in asking if not one.done()]:
            found = await verdict.count_of_results(self.machines.cluster.url)
            if found == results:
                self.say("✗ no result any more, and jobs that have not ended")
                for one in left:
                    one.cancel()
                return
            results = found
            await asyncio.wait(left, timeout=STALLED_S, return_when=asyncio.ALL_COMPLETED)
        self.say("every job has ended")

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            asked = self._submitting.values()
            accepted, ended = (
                sum(len(one.accepted) for one in asked),
                sum(one.ended for one in asked),
            )
            away = ", ".join(sorted(self.machines.down)) or "nobody"
            self.say(f"... {accepted} jobs accepted, {ended} ended; down: {away}")

    async def _judge(self) -> tuple[list[str], Books]:
        machines = self.machines
        await machines.cluster.until_whole()
        books = await verdict.read_books(machines.cluster.url)
        accepted = [
            JobKey(machines.keys[name], job)
            for name, one in self._submitting.items()
            for job in one.accepted
        ]
        lenders = machines.lenders.values()
        found = verdict.faults_of_results(books, accepted)
        found += verdict.faults_of_receipts(books, lenders)
        found += await verdict.faults_of_logs(lenders)
        await machines.stop()
        found += [fault for owner in self._owners.values() for fault in owner.faults()]
        return found, books

    def _table(self, books: Books) -> None:
        logs = [broker.log.read_text(errors="replace") for broker in self.machines.brokers.values()]
        led = sum(log.count("candidate: leading") for log in logs)
        unsure = sum(one.unsure for one in self._submitting.values())
        rows: list[tuple[str, Iterable[tuple[str, int]]]] = [
            ("faults", sorted(self._storm.struck.items())),
            ("jobs", [*sorted(books.states.items()), ("unsure submissions", unsure)]),
            ("tasks", [("results", sum(len(one) for one in books.results.values()))]),
            ("attempts", sorted(verdict.outcomes(self.machines.lenders.values()).items())),
            ("brokers", [("take-overs", led)]),
        ]
        for name, cells in rows:
            told = ", ".join(f"{count} {what}" for what, count in cells) or "none"
            self.say(f"{name:16} {told}")
        for death in self.machines.deaths:
            self.say(f"ended by itself  {death}")


def main() -> int:
    """Run once; 0: all was as promised, 1: it was not, 130: interrupted."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of random faults (10)")
    parser.add_argument("--seed", type=int, help="of a run to see again; random if left out")
    parser.add_argument("--lenders", type=int, default=20, help="how many (20)")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else secrets.randbelow(1_000_000)
    run = Run(seed, args.minutes * 60, args.lenders)
    try:
        found = asyncio.run(_until_ended(run.faults()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        run.machines.remove()
        run.say("interrupted; nothing is left")
        return 130
    for fault in found[:_FAULTS_SHOWN_MAX]:
        run.say(f"✗ {fault}")
    if found:
        run.say(f"✗ {len(found)} faults; seed {seed}; logs in {run.machines.folder}")
        return 1
    run.machines.remove()
    run.say(f"✓ seed {seed}: every accepted task has one result, and nothing ran unasked")
    return 0


async def _until_ended(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """End in good order when asked by SIGTERM, too."""
    task = asyncio.create_task(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())

"""A lender as the broker meets it: offers, leases taken and answered for; no core of its own.

The times and rules are those of `lender.core`: an offer at once where what it says has changed but
not within 50 ms of the last, frozen work handed back after 10 s, a minute of calm before all is
lent again, a class that found no slot first in turn. What the broker doesn't read is left out:
the states of leases on their way from assigned to running.
"""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgpack
from sim.world import Actor, World

from bench.fleet.measures import Reported
from bench.fleet.owners import Kind, Mode
from bench.fleet.queues import Queued
from bench.fleet.work import GIB, Job
from lender.core.offering import CHANGED_S, HOLDING_S, IDLE_S
from lender.protocol.lease import LenderPhase

if TYPE_CHECKING:
    from bench.fleet.exchange import Exchange

CALM_S = 60.0
FROZEN_HANDBACK_S = 10.0
BESIDE_SLOTS = 2

_PREPARES_S = 0.2
_WARM_S = 0.005
_STAY_TOLD_FROM_S: Final = 1024.0
_MILLI = 1000


@dataclass(slots=True, eq=False)
class Held:
    """A lease that is held. `left_s` and `ran_s` are of this machine's time."""

    lease: dict[str, Any]
    job: Job
    tasks: list[int]
    cores: int
    memory_bytes: int
    work_s: float
    """Of its tasks, on a machine of speed 1."""
    done_s: float
    """Of the same, by an earlier attempt."""
    prepares_s: float
    left_s: float
    ran_s: float = 0.0
    since_s: float | None = None
    """Runs since; None while it stands still."""
    turn: int = 0
    """Of its stretches: an end that was foreseen in an earlier one means nothing."""
    vanished: bool = False
    """Its machine went away with it, without a word."""


class Lender(Actor):
    """One machine and its owner."""

    def __init__(
        self, world: World, key: str, kind: Kind, exchange: "Exchange", rng: Random
    ) -> None:
        super().__init__(world, key)
        self.kind = kind
        self.slots = rng.choice(kind.slots)
        self.memory_bytes = self.slots * kind.gib_per_slot * GIB
        self.speed = rng.uniform(*kind.speed)
        self.turns: dict[str, None] = {}
        """Its classes, the one that was served last at the end."""
        self.lines: set[str] = set()
        self.owed: str | None = None
        self._exchange = exchange
        self._measures = exchange.measures
        self._beside = BESIDE_SLOTS if rng.random() < kind.lends_beside else 0
        self._mode = Mode.OFF
        self._phase: LenderPhase = "offline"
        self._lends = self._lent = self._used = 0
        self._used_bytes = 0
        self._held: dict[str, Held] = {}
        self._warm: Job | None = None
        self._classes: tuple[str, ...] = ()
        self._stay = 0
        self._offered_at = float("-inf")
        self._offer_due = False
        self._changes = kind.days(rng)
        self._await_change()

    def lend_to(self, tokens: list[str]) -> None:
        """Have the owner grant these classes."""
        self._classes = tuple(sorted(tokens))
        self.turns = dict.fromkeys(self._classes)

    # what the queues ask

    def asks_for(self, token: str) -> bool:
        """Whether it would take a lease of the class."""
        free = self._phase == "lending" and self._lends > self._used
        return free and self.owed in (None, token)

    def fits(self, queued: Queued) -> bool:
        """Whether it has room for a lease now."""
        return (
            queued.cores <= self._lends - self._used
            and queued.memory_bytes <= self.memory_bytes - self._used_bytes
        )

    def could(self, queued: Queued) -> bool:
        """Whether it had room if it held nothing."""
        return queued.cores <= self._lends and queued.memory_bytes <= self.memory_bytes

    def served(self, token: str) -> None:
        """The others come first now."""
        del self.turns[token]
        self.turns[token] = None

    # what it does

    def seek(self) -> None:
        """Take what waits, as long as there is room; then wait for more."""
        queues = self._exchange.queues
        while self._phase == "lending" and self._lends > self._used:
            queued = queues.first_for(self)
            if queued is None:
                if self.owed is None:
                    queues.wait(self)
                return
            self.take(queued)

    def take(self, queued: Queued) -> None:
        """Begin a lease."""
        lease, now_s = queued.lease, self.world.now
        job = self._exchange.jobs[lease["submitter"], lease["job"]]
        work = job.submitter
        tasks = [task for first, count in lease["ranges"] for task in range(first, first + count)]
        work_s = sum(work.work_s(job.salt, first, count) for first, count in lease["ranges"])
        done_s = sum(int(blob["sha256"]) / _MILLI for _, blob in lease.get("checkpoints", ()))
        prepares_s = _WARM_S if self._warm is job else _PREPARES_S
        held = Held(
            lease,
            job,
            tasks,
            queued.cores,
            queued.memory_bytes,
            work_s,
            done_s,
            prepares_s,
            left_s=prepares_s + (work_s - done_s) / self.speed,
        )
        if lease["attempt"] == 1:
            waited_s = now_s - job.submitted_s
            self._measures.waits[work.key].add(now_s, waited_s, len(tasks))
        self._held[lease["lease"]] = held
        self._used += held.cores
        self._used_bytes += held.memory_bytes
        self._run(held)
        self._changed()

    def cancel(self, leases: tuple[str, ...]) -> None:
        """Stop leases that are not its own any more."""
        if self._mode is Mode.GONE:
            return
        for lease in leases:
            held = self._held.get(lease)
            if held is not None:
                self._drop(held)
                self._waste("vanished" if held.vanished else "cancelled", held, 0.0)
        self.seek()
        self._changed()

    def end(self) -> None:
        """Count what has not come back by the end of the simulation."""
        for held in self._held.values():
            if held.vanished:
                self._waste("vanished", held, 0.0)

    def _ends(self, held: Held, turn: int) -> None:
        if held.turn != turn:
            return
        self._drop(held)
        self._warm = held.job
        self.seek()
        self._report(held, len(held.tasks), "finished")
        self._changed()

    def _hand_back(self, held: Held, cause: str) -> None:
        """Give a lease back with what it has so far."""
        self._drop(held)
        worked_s = max(0.0, held.ran_s - held.prepares_s) * self.speed
        whole_s = held.work_s - held.done_s
        done = int(len(held.tasks) * worked_s / whole_s) if len(held.tasks) > 1 else 0
        kept_s = (
            worked_s if held.job.submitter.kind.checkpoint else whole_s * done / len(held.tasks)
        )
        self._waste(cause, held, kept_s / self.speed)
        self._report(held, done, "evicted", worked_s)

    def _report(self, held: Held, done: int, outcome: str, worked_s: float = 0.0) -> None:
        lease, work, job = held.lease, held.job.submitter, held.job
        duration_s = held.work_s / self.speed / len(held.tasks)
        first = lease["attempt"] == 1 and work.kind.fails > 0
        results = []
        for task in held.tasks[:done]:
            failed = first and work.fails(job.salt, task)
            results.append(
                {
                    "task": task,
                    "state": "failed" if failed else "succeeded",
                    "exit_code": int(failed),
                    "duration_s": duration_s,
                }
            )
            if failed:
                self._measures.waste(self.world.now, "failed", duration_s * held.cores)
        report = {
            "lease": lease["lease"],
            "job": job.id,
            "submitter": work.key,
            "results": results,
            "final": True,
            "outcome": outcome,
        }
        if outcome == "evicted":
            report["reason"] = "needed here"
            if work.kind.checkpoint:
                # The content stands for the state: how much has been done.
                kept = int((held.done_s + worked_s) * _MILLI)
                report["checkpoints"] = [
                    (held.tasks[0], {"sha256": f"{kept:064d}", "size_bytes": 1 << 20})
                ]
        succeeded = sum(one["state"] == "succeeded" for one in results)
        reported = Reported(work.key, succeeded, duration_s * held.cores)
        self._exchange.report(self, lease["lease"], msgpack.packb(report), reported)

    # its owner

    def _await_change(self) -> None:
        at_s, mode = next(self._changes)
        self.world.at(at_s, self, self._enter, mode)

    def _enter(self, mode: Mode) -> None:
        self._mode = mode
        self._stay += 1
        self._await_change()
        match mode:
            case Mode.AWAY:
                if self._phase != "lending" or self._lends < self.slots:
                    self._lend("yielding" if not self._lends else self._phase, self._lends)
                    self.after(CALM_S, self._lend_all, self._stay)
            case Mode.IN_USE:
                beside = min(self._beside, self.slots)
                self._lend("lending" if beside else "yielding", beside)
            case Mode.PAUSED:
                self._lend("paused", 0)
            case Mode.OFF:
                if self._phase != "offline":
                    self._lend("offline", 0)
                    for held in list(self._held.values()):
                        self._hand_back(held, "put to sleep")
            case Mode.GONE:
                self._vanish()

    def _lend_all(self, stay: int) -> None:
        if stay == self._stay:
            self._lend("lending", self.slots)
            self.after(_STAY_TOLD_FROM_S, self._tell_stay, stay, _STAY_TOLD_FROM_S)

    def _tell_stay(self, stay: int, stayed_s: float) -> None:
        """Offer again: the broker expects it to stay the longer, the longer it has stayed."""
        if stay == self._stay:
            self._changed()
            self.after(stayed_s, self._tell_stay, stay, 2 * stayed_s)

    def _lend(self, phase: LenderPhase, slots: int) -> None:
        """Lend so many slots; what is too much stands still, and is handed back after a while."""
        self._phase, self._lends = phase, slots
        self._count_lent()
        if phase != "lending":
            self._exchange.queues.leave(self)
        running = 0
        for held in self._held.values():
            if phase == "lending" and running + held.cores <= slots:
                running += held.cores
                self._run(held)
            elif held.since_s is not None:
                self._halt(held)
                self.after(FROZEN_HANDBACK_S, self._hand_back_frozen, held, held.turn, phase)
        self._changed()
        self.seek()

    def _hand_back_frozen(self, held: Held, turn: int, phase: LenderPhase) -> None:
        still = held.turn == turn and held.since_s is None and not held.vanished
        if still and held.lease["lease"] in self._held:
            self._hand_back(held, "paused" if phase == "paused" else "owner came back")
            self._changed()
            self.seek()

    def _vanish(self) -> None:
        self._exchange.queues.leave(self)
        for held in self._held.values():
            self._halt(held)
            held.vanished = True
        every_s = HOLDING_S if self._held else IDLE_S
        now_s = self.world.now
        self._exchange.silence(self, now_s - (now_s - self._offered_at) % every_s)
        self._phase, self._lends = "offline", 0
        self._count_lent()

    # its sandboxes

    def _run(self, held: Held) -> None:
        if held.since_s is None:
            held.since_s = self.world.now
            self._measures.busy.add(self.world.now, held.cores)
            self.after(held.left_s, self._ends, held, held.turn)

    def _halt(self, held: Held) -> None:
        if held.since_s is not None:
            ran_s = self.world.now - held.since_s
            held.ran_s += ran_s
            held.left_s = max(0.0, held.left_s - ran_s)
            held.since_s = None
            held.turn += 1
            self._measures.busy.add(self.world.now, -held.cores)

    def _drop(self, held: Held) -> None:
        self._halt(held)
        del self._held[held.lease["lease"]]
        self._used -= held.cores
        self._used_bytes -= held.memory_bytes

    # what is told and counted

    def _changed(self) -> None:
        if not self._offer_due and self._mode is not Mode.GONE:
            self._offer_due = True
            self.world.at(self._offered_at + CHANGED_S, self, self._offer)

    def _offer(self) -> None:
        self._offer_due = False
        if self._mode is Mode.GONE:
            return
        self._offered_at = self.world.now
        slots_free = max(0, self._lends - self._used) if self._phase == "lending" else 0
        leases = [
            {
                "lease": lease,
                "job": held.job.id,
                "submitter": held.job.submitter.key,
                "state": "running",
            }
            for lease, held in self._held.items()
        ]
        offer = {
            "lender": self.name,
            "name": self.kind.name,
            "phase": self._phase,
            "slots_total": self.slots,
            "slots_free": slots_free,
            "cpu_free": float(slots_free),
            "memory_free_bytes": self.memory_bytes - self._used_bytes,
            "arch": self.kind.arch,
            "os": "linux",
            "runtimes": ("process", "wasm"),
            "classes": self._classes,
            "consent_digest": "",
            "leases": leases,
        }
        self._exchange.offer(self, msgpack.packb(offer))

    def _waste(self, cause: str, held: Held, kept_s: float) -> None:
        self._measures.handed_back[cause] += 1
        self._measures.waste(self.world.now, cause, max(0.0, held.ran_s - kept_s) * held.cores)

    def _count_lent(self) -> None:
        lent = self._lends if self._phase == "lending" else 0
        self._measures.lent.add(self.world.now, lent - self._lent)
        self._lent = lent

"""What lenderd tells a monitoring system, where its owner asks: nothing of when he is here.

All that moves with what the owner does, or with what is lent while he is away, is held back until
the UTC day is over, and then told in one sum: over a day, the page does not change with any of it.
What makes lenderd step back because of a person (a game, a film, his presence, an unplugged laptop)
is not counted at all. docs/observability.md says of each metric why it may be told.
"""

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from lender.core.effects import Effect, WriteReceipt
from lender.core.events import Event, MachineSampled
from lender.core.lender import Lender
from lender.core.policy import Rung
from lender.daemon.control import Handler
from lender.daemon.peer import Peer
from lender.service.metrics import OTHER, Metric, Registry
from lender.service.metrics_http import Address, MetricsServer
from lender.state.durable import write_whole

log = logging.getLogger(__name__)

DAY_S: Final = 86_400
SAVE_S: Final = 600.0

_CAUSES: Final = {
    **dict.fromkeys(("cpu_others", "pressure_cpu"), "processor"),
    **dict.fromkeys(("memory_kept_bytes", "pressure_memory", "swap_in_bytes_per_s"), "memory"),
    **dict.fromkeys(("temperature_c", "throttled"), "heat"),
    **dict.fromkeys(("gpu_others", "vram_kept_bytes"), "gpu"),
    "pressure_io": "disk",
    "hours": "hours",
}
"""What signals are told as. Those that are not in here tell of a person, and are not counted."""

_WORDS_S: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

CONNECTED = Metric("lenderd_connected", "gauge", "1 while the line to the fleet stands.")
SLOTS = Metric("lenderd_slots", "gauge", "Leases that it would hold at a time, by its settings.")
PHASE = Metric(
    "lenderd_phase_seconds",
    "counter",
    "Time in each phase, until the last midnight UTC; yielding counts as lending.",
    *("phase", ("unconsented", "lending", "paused", "draining", "offline")),
)
ATTEMPTS = Metric(
    "lenderd_attempts",
    "counter",
    "Attempts that ended before the last midnight UTC, by outcome.",
    *("outcome", ("succeeded", "failed", "evicted", "revoked", "lost", OTHER)),
)
CPU = Metric(
    "lenderd_attempts_cpu_seconds", "counter", "Processor time of these attempts, all cores."
)
IN = Metric("lenderd_attempts_in_bytes", "counter", "Inputs that these attempts had.")
OUT = Metric("lenderd_attempts_out_bytes", "counter", "Outputs that these attempts left.")
NETWORK = Metric(
    *("lenderd_attempts_network_bytes", "counter", "Moved by these attempts' own network use."),
    *("direction", ("in", "out")),
)
YIELDS = Metric(
    "lenderd_yields",
    "counter",
    "Steps back for the machine's sake before the last midnight UTC; none for a person's.",
    *("cause", ("processor", "memory", "disk", "heat", "gpu", "hours")),
)
PAUSE_TIME = Metric(
    "lenderd_pause_seconds",
    *("histogram", "To carry out a pause, all stopped and verified; until the last midnight UTC."),
    bounds=_WORDS_S,
)
RELOAD_TIME = Metric(
    "lenderd_reload_seconds",
    "histogram",
    "To carry out a revocation, a grant or a resume, once told; until the last midnight UTC.",
    bounds=_WORDS_S,
)

BY_DAY = (PHASE, ATTEMPTS, CPU, IN, OUT, NETWORK, YIELDS, PAUSE_TIME, RELOAD_TIME)
METRICS = (CONNECTED, SLOTS, *BY_DAY)


class DaemonMetrics:
    """Counts, holds back, and serves."""

    def __init__(
        self,
        path: Path,
        core: Lender,
        clock: Callable[[], float],
        slots: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Go on from what an earlier run has kept.

        Args:
            path: where it is kept: a machine that is off at night would never tell anything else.
            core: asked for its phase and verdict.
            clock: the core's.
            slots: as set.
            wall: seconds since the epoch.
        """
        self._path = path
        self._core = core
        self._clock = clock
        self._wall = wall
        self._shown = Registry(METRICS)
        self._shown.set(SLOTS, slots)
        self._held = Registry(BY_DAY)
        self._day = self._today()
        self._restore()
        self._rung = Rung.FULL
        self._phase: tuple[str, float] | None = None
        """In which it is, and since when, by the core's clock."""

    def watch(self, event: Event, effects: list[Effect]) -> None:
        """Count what happened, and what came of it; no fault in here is anybody else's."""
        try:
            self._turn()
            if isinstance(event, MachineSampled):
                self._look()
            for effect in effects:
                if isinstance(effect, WriteReceipt):
                    self._count(effect)
        except Exception:
            log.exception("metrics are wrong")

    def timed(self, handlers: Mapping[str, Handler]) -> dict[str, Handler]:
        """Return the owner's words that stop work, with their time taken."""
        return {
            "pause": self._timed(PAUSE_TIME, handlers["pause"]),
            "reload": self._timed(RELOAD_TIME, handlers["reload"]),
        }

    async def page(self) -> str:
        """Return what may be told now."""
        self._turn()
        self._shown.set(CONNECTED, float(self._core.status(self._clock()).connected))
        return self._shown.render()

    async def serve(self, address: str) -> None:
        """Serve for ever; what can't be served is said, and lending goes on."""
        server = MetricsServer(Address.of(address), self.page)
        try:
            listener = server.listen()
        except OSError as error:
            log.error("no metrics are served at %s: %s", address, error)  # noqa: TRY400
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.run(listener))
            while True:
                await asyncio.sleep(SAVE_S)
                self.save()

    def save(self) -> None:
        """Keep everything for the next run."""
        kept = {"day": self._day, "shown": self._shown.dump(), "held": self._held.dump()}
        try:
            write_whole(self._path, json.dumps(kept).encode(), durable=False)
        except OSError as error:
            log.warning("metrics are not kept: %s", error)

    def _restore(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
            day, shown, held = int(kept["day"]), dict(kept["shown"]), dict(kept["held"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            log.warning("metrics begin anew: %s can't be read: %s", self._path, error)
            return
        before = Registry(BY_DAY)
        before.absorb(shown)
        self._shown.absorb(before.dump())
        self._held.absorb(held)
        self._day = day
        self._turn()

    def _today(self) -> int:
        return int(self._wall() // DAY_S)

    def _turn(self) -> None:
        """Show what was held back, once its day is over."""
        today = self._today()
        if today != self._day:
            self._shown.absorb(self._held.dump())
            self._held, self._day = Registry(BY_DAY), today

    def _look(self) -> None:
        now = self._clock()
        status = self._core.status(now)
        if self._phase is not None:
            phase, since = self._phase
            self._held.add(PHASE, max(0.0, now - since), phase)
        self._phase = "lending" if status.phase == "yielding" else status.phase, now
        rung, before, self._rung = status.verdict.rung, self._rung, status.verdict.rung
        if rung < before and status.verdict.findings:
            cause = _CAUSES.get(status.verdict.findings[0].signal)
            if cause is not None:
                self._held.add(YIELDS, 1, cause)

    def _count(self, receipt: WriteReceipt) -> None:
        self._held.add(ATTEMPTS, 1, receipt.outcome)
        self._held.add(CPU, receipt.cpu_s)
        self._held.add(IN, receipt.bytes_in)
        self._held.add(OUT, receipt.bytes_out)
        self._held.add(NETWORK, receipt.network_in_bytes, "in")
        self._held.add(NETWORK, receipt.network_out_bytes, "out")

    def _timed(self, metric: Metric, handler: Handler) -> Handler:
        async def carry_out(request: dict[str, Any], peer: Peer) -> Mapping[str, Any]:
            began = time.monotonic()
            answer: Mapping[str, Any] | Awaitable[Mapping[str, Any]] = handler(request, peer)
            if inspect.isawaitable(answer):
                answer = await answer
            self._held.observe(metric, time.monotonic() - began)
            return answer

        return carry_out

"""What keeps lent work from running: the owner's word, sleep, the machine's comfort, the grants."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Final

from lender.core.admission import Plan
from lender.core.budget import bounds_energy
from lender.core.comfort import Comfort
from lender.core.config import Config
from lender.core.consent import Grant, Intent, changed
from lender.core.hold import Hold
from lender.core.lease_run import LeaseRun
from lender.core.metering import EnergyRate
from lender.core.policy import Rung, Verdict
from lender.core.schedule import week_s
from lender.core.signals import PresenceState, Signals
from lender.core.spending import Spending

UNMEASURED: Final = (
    "a budget in kWh allows nothing while energy can't be measured here: "
    "set watts_per_core, or bound CPU hours"
)

METERED: Final = "the network is paid by volume, and its grant gives none there"

GRACE_S: Final = 10.0
"""For a task that leaves a checkpoint to end by itself, where nothing presses."""

MEMORY_GRACE_S: Final = 1.0
"""Memory that the owner needs is needed now, and what is frozen gives none back."""

SLEEP_GRACE_S: Final = 2.0
"""The machine waits for some seconds only (`lender.daemon.sleep_grace`); the upload needs some."""

SAVE_ROOM_S: Final = 2.0
"""Before an end that is known: for the upload of what was left, and for its report."""

_MEMORY: Final = frozenset({"memory_kept_bytes", "pressure_memory", "swap_in_bytes_per_s"})


class Restraint:
    """All that was said and read last; level-triggered.

    Attributes:
        intent: the owner's stored word, by the wall clock; None before it was read.
        behind_s: how far the wall clock is behind the core's time, where it was set back.
        asleep: the machine announced that it will sleep and has not woken up.
        comfort: the policy's verdict on the last reading.
        spending: what was used up this week.
        closed: why a grant that holds allows nothing right now, by id.
        energy_rate: what a second of CPU time takes, as last read.
        energy_measured: whether that is known.
        by_the_clock: time alone may close a grant, or open one: by its hours, or by a budget.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.intent: Intent | None = None
        self.behind_s = 0.0
        self.asleep = False
        self.comfort = Comfort(config.policy, config.cores)
        self.spending = Spending()
        self.closed: dict[str, Hold] = {}
        self._word: Intent | None = None
        self._zone_s = 0
        self.energy_rate = EnergyRate()
        self.energy_measured = False
        self.by_the_clock = True
        self._grants: Mapping[str, Grant] = {}
        self._read: tuple[PresenceState, bool] | None = None

    def sampled(self, now: float, signals: Signals) -> None:
        """Take up a reading."""
        self._zone_s = signals.utc_offset_s
        self.energy_rate = EnergyRate(signals.joules_per_cpu_s, signals.energy_method)
        self.energy_measured = signals.energy_measured
        self.comfort.sampled(now, replace(signals, utc_offset_s=self.utc_offset_s))

    def hear(self, intent: Intent) -> None:
        """Take up the owner's word, as it is stored."""
        self.intent = intent
        self._word = intent.by_clock(self.behind_s)

    def follow(self, behind_s: float) -> None:
        """Take up how far the wall clock is behind: by it the owner's word and hours go."""
        self.behind_s = behind_s
        if self.intent is not None:
            self.hear(self.intent)

    @property
    def utc_offset_s(self) -> int:
        """From the core's time to the owner's local time."""
        return round(self._zone_s - self.behind_s)

    def woken(self) -> None:
        """What was read before the sleep says nothing of now."""
        self.asleep = False
        self.comfort.forget()

    def close_grants(self, now: float, grants: Mapping[str, Grant]) -> frozenset[str]:
        """Find the grants that allow nothing at `now`; return their ids, see `closed`.

        Where time alone changes nothing, they are found once for a reading and for `grants`, which
        nobody changes in place.
        """
        read = self.comfort.verdict.presence, self.energy_measured
        if self.by_the_clock or grants is not self._grants or read != self._read:
            self._grants, self._read = grants, read
            self.by_the_clock = bool(self._config.budget) or any(
                one.budget or one.when.kind == "hours" for one in grants.values()
            )
            self.closed = self._found_closed(now, grants)
        return frozenset(self.closed)

    def _found_closed(self, now: float, grants: Mapping[str, Grant]) -> dict[str, Hold]:
        closed: dict[str, Hold] = {}
        machine = self.spending.exhausted_in_all(now, self.utc_offset_s, self._config.budget)
        at = week_s(now, self.utc_offset_s)
        for id_, grant in grants.items():
            spent = machine or self.spending.exhausted(now, self.utc_offset_s, id_, grant.budget)
            if spent is not None:
                closed[id_] = Hold(spent, evict=True)
            elif self._changed(grant):
                closed[id_] = Hold(changed(grant), evict=True)
            elif not self.energy_measured and bounds_energy(self._config.budget + grant.budget):
                # It stands still: a meter that is silent for a moment costs no work.
                closed[id_] = Hold(f"grant {id_}: {UNMEASURED}")
            elif not grant.when.holds(self.comfort.verdict.presence, at):
                closed[id_] = Hold(f"grant {id_} holds {grant.when.text}")
        return closed

    def stay_s(self, now: float, grants: Iterable[Grant]) -> float | None:
        """Return when the first of these grants ends by the clock, in seconds; None without any.

        Who is present is left out: nobody else is told of it.
        """
        at = week_s(now, self.utc_offset_s)
        ends = [min(one.not_after - now, one.when.left_s(at)) for one in grants]
        return max(0.0, min(ends)) if ends else None

    def _changed(self, grant: Grant) -> bool:
        entry = self._config.workloads.get(grant.workload)
        known = None if entry is None else entry.sha256
        return None not in (known, grant.digest) and known != grant.digest

    def budgets(self, now: float, grants: Mapping[str, Grant]) -> list[dict[str, object]]:
        """Return every bound with what is used up; `grant` is empty for the machine's own."""
        offset_s, spending = self.utc_offset_s, self.spending
        bounds = [("", bound) for bound in self._config.budget]
        bounds += [(id_, bound) for id_, grant in grants.items() for bound in grant.budget]
        found: list[dict[str, object]] = []
        for id_, bound in bounds:
            used = spending.used(now, offset_s, bound.per, id_ or None)
            found.append({"grant": id_, **asdict(bound), "used": getattr(used, bound.measure)})
        return found

    @property
    def metered(self) -> bool:
        """Whether the network is paid by volume, as last read."""
        signals = self.comfort.signals
        return signals is not None and signals.metered

    def bars_network(self, plan: Plan) -> bool:
        """Tell whether it is for a network that its grant gives it not while that is metered."""
        return self.metered and bool(plan.spec.requires.net) and not plan.grant.net_metered

    def bytes_left(self, now: float, grant: Grant, *, among: int, among_all: int) -> int | None:
        """Return what one of some attempts with a network may still move; None: any amount.

        Args:
            now: seconds since the epoch.
            grant: the one that it is under.
            among: attempts that share the grant's budget, this one included.
            among_all: attempts that share the machine's own.
        """
        left = []
        for budget, sharers, id_ in (
            (grant.budget, among, grant.id),
            (self._config.budget, among_all, None),
        ):
            for bound in (one for one in budget if one.measure == "moved_bytes"):
                used = self.spending.used(now, self.utc_offset_s, bound.per, id_)
                left.append(math.ceil(max(0.0, bound.amount - used.moved_bytes) / sharers))
        return min(left, default=None)

    def paused(self, now: float) -> str | None:
        """Return why the owner's word keeps everything from running, in words."""
        if self._word is None:
            return "the owner's stored intent has not been read yet"
        return "the owner paused lending" if self._word.stops(now) else None

    def word(self, now: float, *, any_run: bool) -> tuple[str | None, str | None]:
        """Return why the owner's word pauses the lender, or drains it, in words."""
        if self._word is None or not self._word.finishing(now):
            return self.paused(now), None
        if any_run:
            return None, "the owner takes nothing new; what runs may finish"
        return "the owner paused lending", None

    def yielding(self, *, any_grant: bool, any_open: bool) -> str | None:
        """Return why the lender steps back by itself, in words."""
        if self.asleep:
            return "the machine goes to sleep"
        verdict = self.comfort.verdict
        if verdict.rung <= Rung.FROZEN:
            return verdict.reason
        if any_grant and not any_open:
            return next(iter(self.closed.values())).reason
        return None

    def holds(self, now: float) -> Callable[[LeaseRun], Hold | None]:
        """Return what tells why an attempt may not run at `now`."""
        paused, whole = self.paused(now), self._whole(now)

        def hold(run: LeaseRun) -> Hold | None:
            bound = self._bound(run, paused)
            if whole is None:
                return bound
            # What has to stand still now is not given the time to end by itself.
            return whole if bound is None or bound.grace_s > 0 else whole.at_once()

        return hold

    def _bound(self, run: LeaseRun, paused: str | None) -> Hold | None:
        if paused is not None:
            return Hold(paused, told=paused)
        verdict, closed = self.comfort.verdict, self.closed.get(run.plan.grant.id)
        if verdict.rung == Rung.EVICTED:
            grace_s = _grace_s(verdict) if closed is None else 0.0
            return Hold(verdict.reason, evict=True, grace_s=grace_s)
        if self.bars_network(run.plan):
            # What stands still keeps its connections, and what comes on them is paid for.
            return Hold(METERED, evict=True)
        if verdict.rung == Rung.FROZEN:
            return Hold(verdict.reason)
        if run.uses_gpu and not verdict.gpu_work:
            return Hold(verdict.gpu_reason, evict=True)
        return closed

    def finishes_by(self, now: float) -> float | None:
        """Return when running work has to be over by the owner's word; None: it names no time."""
        word = self._word
        return word.finish_by if word is not None and word.finishing(now) else None

    @property
    def cores(self) -> float:
        """How many cores lent work may use together."""
        return self.comfort.verdict.cores

    def next_deadline(self, now: float) -> float:
        """Return when time alone changes the owner's word; infinity for never."""
        change = None if self._word is None else self._word.next_change(now)
        return math.inf if change is None else change

    def _whole(self, now: float) -> Hold | None:
        """What ends everything at once."""
        if self.asleep:
            why = "the machine goes to sleep"
            return Hold(why, told=why, evict=True, grace_s=SLEEP_GRACE_S)
        word = self._word
        if word is not None and word.holds(now) and word.finish_by is not None:
            over = now >= word.finish_by
            reason = "the time to finish is over"
            return Hold(reason, told=reason, evict=True) if over else None
        return None


def _grace_s(verdict: Verdict) -> float:
    """How long a task may take to end where the machine needs it gone."""
    asked = {one.rung for one in verdict.findings}
    pressing = {one.signal for one in verdict.findings if one.rung == Rung.EVICTED}
    if Rung.FROZEN in asked:
        return 0.0  # it would have to stand still at once
    return MEMORY_GRACE_S if pressing & _MEMORY else GRACE_S

"""How far lent work steps back: down at once, up a rung at a time, after calm that lasted."""

from dataclasses import replace

from lender.core.findings import Allowed, Reading, allowed, find, most_cores, size
from lender.core.policy import Finding, Limits, Policy, Rung, Verdict
from lender.core.presence import PresenceWatch, presence_words
from lender.core.schedule import week_s
from lender.core.signals import PresenceState, Signals

_UNMEASURED = "the machine has not been measured yet"


class Comfort:
    """The last reading, and the verdict on it.

    Down at once, as far as the worst limit asks. Up by one rung, and not before every reading for
    `stay_s` was clear of the twins for the way back; then the stay begins anew. More cores on the
    same rung, and new work or work on a GPU after none, are steps up too.

    Before the first reading everything is frozen: what was never measured is not spare. The first
    one takes its place at once, as there was nothing that it could flap against.
    """

    def __init__(self, policy: Policy, cores: float) -> None:
        """Begin without a reading.

        Args:
            policy: the owner's limits.
            cores: of the machine.
        """
        self.policy = policy
        self.cores = cores
        self.signals: Signals | None = None
        self._presence = PresenceWatch(policy.presence)
        self._allowed: Allowed | None = None
        self._room = Allowed(Rung.FULL, cores)
        self._calm_since: float | None = None
        self.limits: Limits = policy.in_use
        self.verdict = _unmeasured()

    def forget(self) -> None:
        """Count what was read as stale, after a sleep: frozen, and up again by stays."""
        last = self._allowed or Allowed(Rung.FROZEN, 0.0)
        self._allowed = last.within(Allowed(Rung.FROZEN, 0.0))
        self._calm_since = None
        self._presence.forget()
        self.limits = self.policy.in_use
        self.signals = None
        self.verdict = _unmeasured()

    def sampled(self, now: float, signals: Signals) -> None:
        """Take up a reading at `now`, seconds since the epoch, never going back."""
        self.signals = signals
        presence = self._presence.read(now, signals)
        self.limits = self.policy.limits(presence)
        reading = Reading(signals, presence, week_s(now, signals.utc_offset_s), self.cores)
        holding = find(self.limits, reading, back=True)
        # The twins are the stricter: what is clear of them crosses nothing.
        crossed = find(self.limits, reading, back=False) if holding else ()
        room = allowed(self.limits, self.cores, holding)
        if self._allowed is None:
            self._allowed = room
        asked = self._allowed.within(allowed(self.limits, self.cores, crossed))
        self._allowed = self._climb(now, asked, room, fell=asked != self._allowed)
        climbs_at = None
        if self._calm_since is not None:
            climbs_at = self._calm_since + self.limits.stay_s
        self.verdict = Verdict(
            rung=self._allowed.rung,
            cores=self._allowed.cores,
            presence=presence,
            findings=self._reasons(now, self._allowed, crossed, holding),
            figures=_figures(signals, presence),
            new_work=self._allowed.new_work,
            gpu_work=self._allowed.gpu_work,
            climbs_at=climbs_at,
        )

    def _climb(self, now: float, at: Allowed, room: Allowed, *, fell: bool) -> Allowed:
        """Return what is allowed after a step up from `at`, if calm has lasted."""
        if fell or not room.exceeds(at):
            self._calm_since = None
            return at
        self._room = room if self._calm_since is None else self._room.within(room)
        if self._calm_since is None or not self._room.exceeds(at):
            self._calm_since, self._room = now, room
        if now - self._calm_since < self.limits.stay_s:
            return at
        higher = _step_up(at, self._room, self.limits, self.cores)
        self._calm_since, self._room = (now if room.exceeds(higher) else None), room
        return higher

    def _reasons(
        self,
        now: float,
        at: Allowed,
        crossed: tuple[Finding, ...],
        holding: tuple[Finding, ...],
    ) -> tuple[Finding, ...]:
        """Return why nothing more than `at` is lent, worst first."""
        over = {finding.signal: finding for finding in crossed}
        reasons = []
        for held in holding:
            finding = over.get(held.signal)
            if held.bars == "GPU work":
                reasons += [] if at.gpu_work else [finding or held]
            elif (
                held.rung > at.rung or at.rung == Rung.FULL or (finding and finding.rung == at.rung)
            ):
                reasons += [finding] if finding else []
            else:
                reasons.append(replace(held, rung=at.rung, cores=at.cores))
        less = at.rung < Rung.FULL or not (at.new_work and at.gpu_work)
        if less and (self._calm_since is not None or all(one.rung > at.rung for one in reasons)):
            calm_s = 0.0 if self._calm_since is None else now - self._calm_since
            text = f"calm for {calm_s:.0f} s, lends more after {self.limits.stay_s:g} s"
            stay = Finding("stay", at.rung, text, calm_s, self.limits.stay_s, cores=at.cores)
            reasons.append(stay)
        return tuple(sorted(reasons, key=lambda finding: finding.rung))


def _step_up(at: Allowed, room: Allowed, limits: Limits, cores: float) -> Allowed:
    """Return one rung more than `at`, as far as there is room; nothing of it gets less."""
    rung = Rung(max(at.rung, min(room.rung, at.rung + 1)))
    if rung < Rung.REDUCED:
        more = 0.0
    elif at.rung < Rung.REDUCED:
        more = min(room.cores, limits.reduced_share * most_cores(limits, cores))
    else:
        more = max(at.cores, room.cores)
    return Allowed(rung, more, at.new_work or room.new_work, at.gpu_work or room.gpu_work)


def _unmeasured() -> Verdict:
    why = Finding("unmeasured", Rung.FROZEN, _UNMEASURED, 0.0, 0.0)
    return Verdict(Rung.FROZEN, 0.0, "present", (why,), _UNMEASURED)


def _figures(signals: Signals, presence: PresenceState) -> str:
    parts = [
        f"others use {signals.cpu_others:.1f} cores",
        f"{size(signals.memory_available_bytes)} of memory available",
    ]
    readings = (signals.pressure_cpu, signals.pressure_memory, signals.pressure_io)
    pressures = [percent for percent in readings if percent is not None]
    if pressures:
        parts.append(f"pressure {max(pressures):.1f} %")
    if signals.temperature_c is not None:
        parts.append(f"{signals.temperature_c:.0f} °C")
    charge = "" if signals.battery is None else f" ({signals.battery * 100:.0f} %)"
    parts.append(f"on battery{charge}" if signals.on_battery else "on mains")
    parts.append(presence_words(presence, signals.presence))
    return ", ".join(parts)

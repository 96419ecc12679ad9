"""Holds a reading against the owner's limits: what asks for stepping back, in words and numbers."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from lender.core.conditions import UNHEARD, unmet
from lender.core.policy import Finding, Limits, Rung, Steps, Threshold
from lender.core.signals import OutsideReading, PresenceState, Signals

CORES_MIN: Final = 0.1
"""Less is not worth the stopping and starting."""

_KIB = 1 << 10
_MIB = 1 << 20
_GIB = 1 << 30


class Allowed(NamedTuple):
    """What may be lent; the amounts compare one by one, not as a tuple."""

    rung: Rung
    cores: float
    new_work: bool = True
    gpu_work: bool = True

    def within(self, other: "Allowed") -> "Allowed":
        """Return the less of both, each amount by itself."""
        return Allowed(
            min(self.rung, other.rung),
            min(self.cores, other.cores),
            self.new_work and other.new_work,
            self.gpu_work and other.gpu_work,
        )

    def exceeds(self, other: "Allowed") -> bool:
        """Tell whether any amount is more than in `other`."""
        return self.within(other) != self


@dataclass(frozen=True, slots=True)
class Reading:
    """Signals, and what has to be known beside them.

    Attributes:
        signals: what was read.
        presence: what it means.
        week_s: seconds since the owner's Monday 00:00.
        cores: of the machine.
    """

    signals: Signals
    presence: PresenceState
    week_s: float
    cores: float


def most_cores(limits: Limits, cores: float) -> float:
    """Return what a machine of so many cores lends at FULL."""
    return max(0.0, cores - limits.cores_kept)


def allowed(limits: Limits, cores: float, findings: tuple[Finding, ...]) -> Allowed:
    """Return what `findings` leave on a machine of so many cores."""
    left = Allowed(Rung.FULL, most_cores(limits, cores))
    for finding in findings:
        new_work, gpu_work = finding.bars != "new work", finding.bars != "GPU work"
        left = left.within(Allowed(finding.rung, finding.cores, new_work, gpu_work))
    return left


def find(limits: Limits, reading: Reading, *, back: bool) -> tuple[Finding, ...]:
    """Return what asks for stepping back, worst first.

    Args:
        limits: those that hold now.
        reading: what was read.
        back: hold it against the twins for the way back, which are stricter.
    """
    judge = _Judge(limits, reading, back=back)
    found = [
        *judge.agreed(),
        *judge.at_play(),
        *judge.cpu(),
        *judge.memory(),
        *judge.heat_and_power(),
        *judge.gpu(),
        *judge.network(),
        *judge.outside(),
    ]
    return tuple(sorted(found, key=lambda finding: finding.rung))


class _Judge:
    """One look at one reading; each method yields the findings of its signals."""

    def __init__(self, limits: Limits, reading: Reading, *, back: bool) -> None:
        self._limits = limits
        self._reading = reading
        self._signals = reading.signals
        self._back = back
        self._most = most_cores(limits, reading.cores)

    def agreed(self) -> Iterator[Finding]:
        """What the owner lends at all, at this hour."""
        hours, week_s = self._limits.hours, self._reading.week_s
        if not hours.holds(self._reading.presence, week_s):
            yield Finding("hours", Rung.FROZEN, f"lends {hours.text}", week_s, 0.0)
        cores = min(self._limits.cores, self._most)
        if cores < max(self._most, CORES_MIN):
            there = "somebody is here" if self._reading.presence == "present" else "nobody is here"
            text = f"{there}: at most {cores:g} of {self._reading.cores:g} cores are lent"
            rung = Rung.REDUCED if cores >= CORES_MIN else Rung.FROZEN
            yield Finding(
                "cores", rung, text, self._reading.cores, cores, cores=self._at(rung, cores)
            )

    def at_play(self) -> Iterator[Finding]:
        """A game, a program of the owner's list, a film or a call."""
        limits, signals = self._limits, self._signals
        if signals.game:
            yield from self._asked("game", limits.game, "a game is played")
        if signals.exclusive_app:
            text = f"{signals.exclusive_app} runs"
            yield from self._asked("exclusive_app", limits.exclusive_app, text)
        if signals.inhibited_by:
            text = f"{signals.inhibited_by} keeps the screen awake"
            yield from self._asked("inhibited", limits.inhibited, text)

    def cpu(self) -> Iterator[Finding]:
        """What others compute, and how long programs wait for CPU and disk."""
        limits, signals, others = self._limits, self._signals, self._signals.cpu_others
        left = math.floor((self._reading.cores - others) * 10 + 1e-6) / 10
        said = "others use {:.1f} cores".format
        yield from self._stepped("cpu_others", limits.cpu_others, others, said, _cores, left)
        if signals.pressure_cpu is not None:
            said = "programs wait for the CPU {:.1f} % of the time".format
            yield from self._stepped(
                "pressure_cpu", limits.pressure_cpu, signals.pressure_cpu, said, "{:g} %".format
            )
        if signals.pressure_io is not None:
            said = "programs wait for the disk {:.1f} % of the time".format
            yield from self._stepped(
                "pressure_io", limits.pressure_io, signals.pressure_io, said, "{:g} %".format
            )

    def memory(self) -> Iterator[Finding]:
        """What is available, and how long programs wait for it."""
        limits, signals = self._limits, self._signals
        available, kept = signals.memory_available_bytes, limits.memory_kept_bytes
        limit = kept.back if self._back else kept.at
        if available < limit:
            under = "lends more from" if self._back else "under"
            text = f"{size(available)} of memory available, {under} {size(limit)}"
            yield Finding(
                "memory_kept_bytes", Rung.EVICTED, text, available, kept.at, clears_at=kept.back
            )
        waited = signals.pressure_memory
        if waited is not None:
            said = "programs wait for memory {:.1f} % of the time".format
            yield from self._stepped(
                "pressure_memory", limits.pressure_memory, waited, said, "{:g} %".format
            )
        yield from self._stepped(
            "swap_in_bytes_per_s",
            limits.swap_in_bytes_per_s,
            signals.swap_in_bytes_per_s,
            lambda rate: f"{size(rate)} a second come back from swap",
            size,
        )

    def heat_and_power(self) -> Iterator[Finding]:
        """Temperature, throttling, battery."""
        limits, signals = self._limits, self._signals
        if signals.temperature_c is not None and signals.temperature_limit_c is not None:
            sensor_limit_c = signals.temperature_limit_c
            yield from self._stepped(
                "temperature_c",
                limits.temperature_c,
                signals.temperature_c - sensor_limit_c,
                lambda margin_c: f"{margin_c + sensor_limit_c:.0f} °C",
                lambda margin_c: f"{margin_c + sensor_limit_c:.0f} °C",
            )
        if signals.throttled:
            text = "the machine slows itself down for heat or power"
            yield from self._asked("throttled", limits.throttled, text)
        if signals.on_battery:
            yield from self._battery(signals.battery)

    def gpu(self) -> Iterator[Finding]:
        """The GPU that others use most, and what is free of the memory of those that are lent."""
        limits, signals = self._limits, self._signals
        if signals.gpus:
            use = max(gpu.use_others for gpu in signals.gpus)
            yield from self._stepped(
                "gpu_others",
                limits.gpu_others,
                use,
                lambda share: f"others use the GPU {_percent(share)} of the time",
                _percent,
            )
        free, kept = signals.vram_left_bytes, limits.vram_kept_bytes
        limit = kept.back if self._back else kept.at
        if free is not None and free < limit:
            under = "lends it again from" if self._back else "under"
            text = f"no GPU work: {size(free)} of GPU memory free, {under} {size(limit)}"
            yield Finding(
                "vram_kept_bytes",
                Rung.FULL,
                text,
                free,
                kept.at,
                clears_at=kept.back,
                cores=self._most,
                bars="GPU work",
            )

    def network(self) -> Iterator[Finding]:
        """What the network costs."""
        if self._signals.metered and not self._limits.metered:
            text = "the network is paid by volume: nothing new is taken"
            yield Finding("metered", Rung.FULL, text, 1.0, 0.0, cores=self._most, bars="new work")

    def outside(self) -> Iterator[Finding]:
        """What the house says, against the owner's conditions."""
        heard = {one.name: one for one in self._signals.outside}
        for condition in self._limits.conditions:
            reading = heard.get(condition.name, OutsideReading(condition.name, None, UNHEARD))
            finding = unmet(condition, reading, back=self._back)
            if finding is not None:
                yield finding

    def _battery(self, charge: float | None) -> Iterator[Finding]:
        enough = self._limits.battery_enough
        text = "on battery" if charge is None else f"on battery, {charge * 100:.0f} % left"
        if enough is None:
            yield from self._asked("on_battery", self._limits.on_battery, text)
            return
        # A charge that nobody knows may be low.
        value, limit = charge or 0.0, enough.back if self._back else enough.at
        if value < limit and self._limits.on_battery < Rung.FULL:
            rung = self._limits.on_battery
            text += f", {'lends more from' if self._back else 'under'} {limit * 100:.0f} %"
            cores = self._at(rung)
            yield Finding("on_battery", rung, text, value, enough.at, enough.back, cores)

    def _asked(self, signal: str, rung: Rung, text: str) -> Iterator[Finding]:
        """What is just so, without a number of its own."""
        if rung < Rung.FULL:
            yield Finding(signal, rung, text, 1.0, 0.0, cores=self._at(rung))

    def _stepped(
        self,
        signal: str,
        steps: Steps,
        value: float,
        said: Callable[[float], str],
        shown: Callable[[float], str],
        left: float | None = None,
    ) -> Iterator[Finding]:
        """The hardest step that is crossed.

        `said` puts the value into words and `shown` the limit; `left` cores are lent at REDUCED,
        if given.
        """
        step = self._crossed(steps, value)
        if step is None:
            return
        rung, threshold = step
        if left is not None and left < CORES_MIN:
            rung = min(rung, Rung.FROZEN)
        words = f", lends more at {shown(threshold.back)}"
        if not self._back:
            words = f", over {shown(threshold.at)}"
        cores = self._at(rung, left)
        yield Finding(signal, rung, said(value) + words, value, threshold.at, threshold.back, cores)

    def _crossed(self, steps: Steps, value: float) -> tuple[Rung, Threshold] | None:
        for rung, threshold in (
            (Rung.EVICTED, steps.evicted),
            (Rung.FROZEN, steps.frozen),
            (Rung.REDUCED, steps.reduced),
        ):
            if threshold and value > (threshold.back if self._back else threshold.at):
                return rung, threshold
        return None

    def _at(self, rung: Rung, left: float | None = None) -> float:
        """Cores that are lent at `rung`."""
        if rung < Rung.REDUCED:
            return 0.0
        return self._limits.reduced_share * self._most if left is None else left


def size(size_bytes: float) -> str:
    """For people: `256 KiB`, `912 MiB`, `3.9 GiB`."""
    if size_bytes < _MIB:
        return f"{size_bytes / _KIB:.0f} KiB"
    if size_bytes < _GIB:
        return f"{size_bytes / _MIB:.0f} MiB"
    return f"{size_bytes / _GIB:.1f} GiB"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _cores(cores: float) -> str:
    """At least one decimal, two where they tell more."""
    text = f"{cores:.2f}"
    return text.removesuffix("0")

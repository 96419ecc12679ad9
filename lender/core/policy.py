"""The owner's limits, and the words of a verdict: how much may be lent right now, and why.

`lender.core.comfort` holds readings against the limits; `lender.core.usual` has the defaults.
"""

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

from lender.core.schedule import ALWAYS, When
from lender.core.signals import PresenceState


class Rung(IntEnum):
    """The ladder that lent work climbs down and up again."""

    EVICTED = 0
    FROZEN = 1
    REDUCED = 2
    FULL = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to step back: what was read, and the limit that it crosses.

    Attributes:
        signal: the limit's name in `Limits`; `mqtt` and a condition's name; `stay` while calm must
            last, `unmeasured` without a reading.
        rung: what it asks for of all lent work; FULL only of what `bars` a part of it.
        text: in words, with its numbers.
        value: what was read, in the signal's unit; 1 for what is just so.
        limit: what it crosses, in the same unit.
        clears_at: the twin of `limit` for the way back; None where the finding has none.
        cores: that it leaves to lent work.
        bars: the part that it allows none of: more work than runs already, or work on a GPU,
            which is evicted, because no freezing gives GPU memory back.
    """

    signal: str
    rung: Rung
    text: str
    value: float
    limit: float
    clears_at: float | None = None
    cores: float = 0.0
    bars: Literal["", "new work", "GPU work"] = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be lent.

    Attributes:
        rung: the lowest that any finding asks for.
        cores: may be lent at most, 0 below REDUCED; a fraction means part of the time.
        presence: what the signals mean for grants that hold when the owner is idle or away.
        findings: the reasons to step back, worst first; none at FULL while nothing is barred.
        figures: the reading in words, for the owner.
        new_work: more may be taken; False: only what runs goes on.
        gpu_work: work on a GPU may run; False: it is evicted, and none is taken.
        climbs_at: when more may be lent if it stays calm, seconds since the epoch; None: not calm.
    """

    rung: Rung
    cores: float
    presence: PresenceState
    findings: tuple[Finding, ...]
    figures: str
    new_work: bool = True
    climbs_at: float | None = None
    gpu_work: bool = True

    @property
    def reason(self) -> str:
        """The first finding, or the figures, in words."""
        return self.findings[0].text if self.findings else self.figures

    @property
    def gpu_reason(self) -> str:
        """What bars work on a GPU, in words; else `reason`."""
        barring = (finding.text for finding in self.findings if finding.bars == "GPU work")
        return next(barring, self.reason)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit, and its twin for the way back: crossed at `at`, clear again at `back`."""

    at: float
    back: float


@dataclass(frozen=True, slots=True)
class Steps:
    """What a signal that gets worse as it grows asks for; None: never that.

    Raises:
        ValueError: a twin above its threshold, or a harder step at a lower value.
    """

    reduced: Threshold | None = None
    frozen: Threshold | None = None
    evicted: Threshold | None = None

    def __post_init__(self) -> None:
        below = -math.inf
        for name, step in (
            ("reduced", self.reduced),
            ("frozen", self.frozen),
            ("evicted", self.evicted),
        ):
            if step is None:
                continue
            if step.back > step.at:
                raise ValueError(f"{name}: back {step.back:g} must not be above at {step.at:g}")
            if step.at < below:
                raise ValueError(f"{name}: {step.at:g} must not be below the milder step {below:g}")
            below = step.at


NEVER = Steps()


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to hold for anything lent to run: of a value from elsewhere, exactly one of these.

    Attributes:
        name: what the owner calls it.
        below: it is this much at most; less again at `back`.
        above: it is this much at least; more again at `back`.
        equals: it is one of these texts.

    Raises:
        ValueError: none or several, or a twin on the wrong side.
    """

    name: str
    below: Threshold | None = None
    above: Threshold | None = None
    equals: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum((self.below is not None, self.above is not None, bool(self.equals))) != 1:
            raise ValueError(f"{self.name}: name one of below, above and equals")
        if self.below is not None and self.below.back > self.below.at:
            raise ValueError(f"{self.name}: back must not be above at")
        if self.above is not None and self.above.back < self.above.at:
            raise ValueError(f"{self.name}: back must not be below at")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner can bear; the defaults bear everything.

    Attributes:
        cores: lent at most.
        cores_kept: never lent, 0 or more.
        cpu_others: cores that others keep busy. At `reduced` they get exactly what they need:
            the rest is lent.
        pressure_cpu, pressure_memory, pressure_io: percent of the time that something waited.
        memory_kept_bytes: available memory under which lent work is evicted: frozen memory is
            memory. Clear again above `back`.
        vram_kept_bytes: free memory of a GPU that is never lent, and under which work on GPUs is
            evicted. Clear again above `back`.
        swap_in_bytes_per_s: read back from swap.
        gpu_others: share of the time that others use the busiest GPU, 0 to 1.
        temperature_c: degrees above the sensor's own limit; -15 is fifteen under it.
        throttled: asked for while the machine slows itself down; FULL: it does not matter.
        on_battery: asked for off mains.
        battery_enough: a charge, 0 to 1, from which `on_battery` does not count; it counts under
            `at`, and until `back` is reached again. None: every charge counts.
        game, exclusive_app: asked for while one runs.
        inhibited: asked for while a film or a call keeps the screen awake.
        metered: new work is also taken where the network is paid by volume.
        hours: when lent work may run; FROZEN outside.
        conditions: all of them have to hold; frozen else.
        reduced_share: of the cores, where REDUCED names no number of its own; over 0, up to 1.
        stay_s: how long calm must hold unbroken before each step up.

    Raises:
        ValueError: a twin on the wrong side of its threshold, or a number out of its range.
    """

    cores: float = math.inf
    cores_kept: float = 0.0
    cpu_others: Steps = NEVER
    pressure_cpu: Steps = NEVER
    pressure_memory: Steps = NEVER
    pressure_io: Steps = NEVER
    memory_kept_bytes: Threshold = Threshold(0, 0)
    vram_kept_bytes: Threshold = Threshold(0, 0)
    swap_in_bytes_per_s: Steps = NEVER
    gpu_others: Steps = NEVER
    temperature_c: Steps = NEVER
    throttled: Rung = Rung.FULL
    on_battery: Rung = Rung.FULL
    battery_enough: Threshold | None = None
    game: Rung = Rung.FULL
    exclusive_app: Rung = Rung.FULL
    inhibited: Rung = Rung.FULL
    metered: bool = True
    hours: When = ALWAYS
    conditions: tuple[Condition, ...] = ()
    reduced_share: float = 0.5
    stay_s: float = 10.0

    def __post_init__(self) -> None:
        if self.memory_kept_bytes.back < self.memory_kept_bytes.at:
            raise ValueError("memory_kept_bytes: back must not be below at")
        if not 0 <= self.vram_kept_bytes.at <= self.vram_kept_bytes.back:
            raise ValueError("vram_kept_bytes: back must not be below at, which is not negative")
        if self.battery_enough is not None and self.battery_enough.back < self.battery_enough.at:
            raise ValueError("battery_enough: back must not be below at")
        if not 0 < self.reduced_share <= 1:
            raise ValueError("reduced_share: must be over 0 and at most 1")
        for name in ("cores", "cores_kept", "stay_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: must not be negative")


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """When somebody counts as there (see `lender.core.presence`).

    Attributes:
        idle_after_s: without input they are idle.
        away_after_s: and then away.
        touch_s: input for less than this may be a bump against the desk.
        forgiven_s: without more input after a bump, what was before it holds again.

    Raises:
        ValueError: away before idle, or a negative time.
    """

    idle_after_s: float = 300.0
    away_after_s: float = 900.0
    touch_s: float = 5.0
    forgiven_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.idle_after_s <= self.away_after_s:
            raise ValueError("away_after_s: must not be below idle_after_s, which is not negative")
        if not 0 <= self.touch_s <= self.forgiven_s:
            raise ValueError("forgiven_s: must not be below touch_s, which is not negative")


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's limits, each with a value for while they are there and one for while not.

    Attributes:
        in_use: hold while somebody is present.
        away: hold while they are idle or away.
        presence: when they are.
    """

    in_use: Limits = Limits()
    away: Limits = Limits()
    presence: PresenceRule = PresenceRule()

    def under(self, conditions: tuple[Condition, ...]) -> "Policy":
        """Return the same limits, with these conditions on all of them."""
        return replace(
            self,
            in_use=replace(self.in_use, conditions=conditions),
            away=replace(self.away, conditions=conditions),
        )

    def limits(self, presence: PresenceState) -> Limits:
        """Return the limits that hold at `presence`."""
        return self.in_use if presence == "present" else self.away

"""The `[policy]` table of lenderd.toml: the owner's limits, laid over the defaults.

A limit that is named replaces the default whole. `false` takes a limit away. A threshold is a
number, or a table with its twin for the way back: `{ at = 20, back = 10 }`.
"""

import difflib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from lender.core.policy import NEVER, Limits, Policy, PresenceRule, Rung, Steps, Threshold
from lender.core.schedule import When, parse_when
from lender.core.usual import dedicated_policy, usual_policy

_STEP_NAMES = ("reduced", "frozen", "evicted")


def _unknown(key: str, known: list[str]) -> ValueError:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return ValueError(f"unknown setting {key!r}; {hint}")


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124  # NaN
        raise ValueError(f"{value!r} is no number: write 20, or {{ at = 20, back = 10 }}")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError("is larger than numbers are here")
    return value


def _threshold(value: object, twin: Callable[[float], float]) -> Threshold:
    if not isinstance(value, dict):
        at = _number(value)
        return Threshold(at, twin(at))
    for key in value:
        if key not in ("at", "back"):
            raise _unknown(key, ["at", "back"])
    if "at" not in value:
        raise ValueError("names no threshold: write { at = 20, back = 10 }")
    at = _number(value["at"])
    return Threshold(at, _number(value["back"]) if "back" in value else twin(at))


def _steps(twin: Callable[[float], float]) -> PlainValidator:
    def read(value: object) -> Steps:
        if value is False:
            return NEVER
        if not isinstance(value, dict) or not value:
            raise ValueError("names no step: write { reduced = 10, frozen = 40 }, or false")
        for key in value:
            if key not in _STEP_NAMES:
                raise _unknown(key, list(_STEP_NAMES))
        return Steps(**{name: _threshold(step, twin) for name, step in value.items()})

    return PlainValidator(read)


def _rung(value: object) -> Rung:
    if value is False:
        return Rung.FULL
    names = {rung.name.lower(): rung for rung in Rung}
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"must be {', '.join(sorted(names))}, or false")
    return names[value]


def _when(value: object) -> When:
    if not isinstance(value, str):
        raise ValueError("must be a text like 'Mon-Fri 18:00-08:00, Sat-Sun'")  # noqa: TRY004  # pydantic's
    return parse_when(value)


def _quarter_less(at: float) -> float:
    return 0.75 * at


def _quarter_more(at: float) -> float:
    return 1.25 * at


GrowingSteps = Annotated[Steps, _steps(_quarter_less)]
TemperatureSteps = Annotated[Steps, _steps(lambda at: at - 5)]
Floor = Annotated[
    Threshold,
    PlainValidator(
        lambda value: Threshold(0, 0) if value is False else _threshold(value, _quarter_more)
    ),
]
Level = Annotated[Threshold, PlainValidator(lambda value: _threshold(value, lambda at: at))]
Charge = Annotated[
    Threshold, PlainValidator(lambda value: _threshold(value, lambda at: min(1.0, at + 0.1)))
]
AskedRung = Annotated[Rung, PlainValidator(_rung)]


class Table(BaseModel):
    """Refuses a key that it does not know, and names the nearest: a misspelt limit is none."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:  # noqa: ANN401  # whatever the file holds
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                raise _unknown(key, list(cls.model_fields))
        return value

    def given(self) -> dict[str, Any]:
        """Return what was set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class LimitsSettings(Table):
    """`[policy.in_use]` and `[policy.away]`; what each limit means: `lender.core.policy.Limits`."""

    cores: float = 0.0
    cores_kept: float = 0.0
    cpu_others: GrowingSteps = NEVER
    pressure_cpu: GrowingSteps = NEVER
    pressure_memory: GrowingSteps = NEVER
    pressure_io: GrowingSteps = NEVER
    memory_kept_bytes: Floor = Threshold(0, 0)
    vram_kept_bytes: Floor = Threshold(0, 0)
    swap_in_bytes_per_s: GrowingSteps = NEVER
    gpu_others: GrowingSteps = NEVER
    temperature_c: TemperatureSteps = NEVER
    throttled: AskedRung = Rung.FULL
    on_battery: AskedRung = Rung.FULL
    battery_enough: Charge | None = None
    game: AskedRung = Rung.FULL
    exclusive_app: AskedRung = Rung.FULL
    inhibited: AskedRung = Rung.FULL
    metered: bool = True
    hours: Annotated[When, PlainValidator(_when)] = When()
    reduced_share: float = 0.5
    stay_s: float = 0.0

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        Limits(**self.given())
        return self


class PresenceSettings(Table):
    """`[policy.presence]`: when somebody counts as there."""

    idle_after_s: float = PresenceRule().idle_after_s
    away_after_s: float = PresenceRule().away_after_s
    touch_s: float = PresenceRule().touch_s
    forgiven_s: float = PresenceRule().forgiven_s

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        self.rule()
        return self

    def rule(self) -> PresenceRule:
        """Return it for the core."""
        return PresenceRule(**self.model_dump())


class PolicySettings(Table):
    """When lent work steps back, and how far."""

    defaults: Literal["usual", "dedicated"] = "usual"
    """What holds where nothing is set: a machine that people work at, or one that only lends."""
    in_use: LimitsSettings = LimitsSettings()
    """Limits while somebody is present."""
    away: LimitsSettings = LimitsSettings()
    """Limits while they are idle or away."""
    presence: PresenceSettings = PresenceSettings()
    history_days: int = Field(default=7, ge=0, le=90)
    """Readings are kept for so long, for `lender policy replay`; 0: never recorded."""

    def policy(
        self, cores: float, *, reserve_memory_bytes: int, yield_cpu_others: float | None
    ) -> Policy:
        """Return the owner's limits on a machine of so many cores.

        Args:
            cores: of the machine.
            reserve_memory_bytes: the memory kept, where the table names none.
            yield_cpu_others: cores of others at which work is frozen, where the table says nothing
                of `cpu_others`; None: the defaults.
        """
        base = usual_policy(cores) if self.defaults == "usual" else dedicated_policy()
        general: dict[str, Any] = {
            "memory_kept_bytes": _threshold(reserve_memory_bytes, _quarter_more)
        }
        if yield_cpu_others is not None:
            general["cpu_others"] = Steps(frozen=_threshold(yield_cpu_others, _quarter_less))
        return Policy(
            in_use=replace(base.in_use, **(general | self.in_use.given())),
            away=replace(base.away, **(general | self.away.given())),
            presence=self.presence.rule(),
        )

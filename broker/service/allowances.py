"""What the operator's file says of submitters: keys, weights and quotas."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from broker.core.events import SubmittersChanged
from broker.core.intake.quotas import DEFAULT, Quota
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import check_public_key

DEFAULT_TABLE = "default"
"""Its values hold for every submitter that has none of its own."""

WEIGHT_MAX = 1000.0
_MOST = 1 << 53
_COLUMNS = ("NAME", "WEIGHT", "JOBS", "TASKS", "RUNNING", "BYTES", "STORED", "KEY")
_STORED = "stored_bytes_max"

STORED_BYTES_MIN = 1 << 20


class Allowance(BaseModel):
    """What may be said in a table; None is not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    weight: float | None = Field(default=None, gt=0, le=WEIGHT_MAX)
    """Entitled to so much beside the others, whose weight is 1."""
    jobs_max: int | None = Field(default=None, ge=1, le=_MOST)
    tasks_max: int | None = Field(default=None, ge=1, le=_MOST)
    running_tasks_max: int | None = Field(default=None, ge=0, le=_MOST)
    """None of them: what waits is held back."""
    bytes_max: int | None = Field(default=None, ge=1, le=_MOST)
    stored_bytes_max: int | None = Field(default=None, ge=STORED_BYTES_MIN, le=_MOST)
    """Of what it stores, and the same again of what lenders leave for it; the server itself refuses
    what is more, and sets so much of its own room aside. Not said: as much as the server has."""

    def said(self) -> dict[str, Any]:
        """Return what is said."""
        return self.model_dump(exclude_none=True)


class Submitter(Allowance):
    """One who may submit."""

    key: str

    @field_validator("key")
    @classmethod
    def _is_key(cls, key: str) -> str:
        try:
            return check_public_key(key)
        except ProtocolError as error:
            raise ValueError(f"{error.reason}; `lender keygen` makes one") from error


@dataclass(frozen=True)
class Submitters:
    """All of the file."""

    default: Allowance = field(default_factory=Allowance)
    by_name: Mapping[str, Submitter] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Submitters":
        """Read what TOML has read: tables, or keys alone as `name = "U..."`.

        Raises:
            ValueError: something is wrong; says what, and where.
        """
        default, by_name = Allowance(), {}
        for name, one in document.items():
            fields = {"key": one} if isinstance(one, str) else one
            try:
                if name == DEFAULT_TABLE:
                    default = Allowance.model_validate(fields)
                else:
                    by_name[name] = Submitter.model_validate(fields)
            except ValidationError as error:
                fault = error.errors(include_url=False, include_input=False)[0]
                where = ".".join((name, *map(str, fault["loc"])))
                # Pydantic puts this before the words of our own validators.
                reason = fault["msg"].removeprefix("Value error, ")
                raise ValueError(f"{where}: {reason}") from error
        return cls(default, by_name)

    def dump(self) -> dict[str, dict[str, Any]]:
        """Return what `parse` reads: tables alone."""
        tables = {DEFAULT_TABLE: self.default.said()} if self.default.said() else {}
        return tables | {name: self.by_name[name].said() for name in sorted(self.by_name)}

    def event(self, others: Iterable[str]) -> SubmittersChanged:
        """Return what the core is told; `others` are keys that may submit as well."""
        said = {key: self.default.said() for key in others}
        said |= {one.key: self.default.said() | one.said() for one in self.by_name.values()}
        return SubmittersChanged(
            submitters=frozenset(said),
            weights={key: float(one.get("weight", 1.0)) for key, one in said.items()},
            quotas={key: _quota(one) for key, one in said.items()},
        )

    def stored_bytes_max(self, others: Iterable[str]) -> dict[str, int | None]:
        """Return how much may be stored for each of those who may submit; None for no bound.

        `others` are keys that may submit as well.
        """
        usual = self.default.stored_bytes_max
        found: dict[str, int | None] = dict.fromkeys(others, usual)
        for one in self.by_name.values():
            found[one.key] = usual if one.stored_bytes_max is None else one.stored_bytes_max
        return found

    def as_table(self, others: Mapping[str, str]) -> str:
        """Return what people read; what holds because nothing else is said has brackets.

        `others` may submit as well: name = public key.
        """
        usual = {"weight": 1.0, **DEFAULT._asdict(), _STORED: None} | self.default.said()
        rows = [_COLUMNS, _row(f"[{DEFAULT_TABLE}]", self.default.said(), usual)]
        said = {name: {"key": key} for name, key in others.items()}
        said |= {name: one.said() for name, one in self.by_name.items()}
        rows += [_row(name, one, usual) for name, one in sorted(said.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def _quota(said: Mapping[str, Any]) -> Quota:
    return DEFAULT._replace(**{name: said[name] for name in Quota._fields if name in said})


def _row(name: str, said: Mapping[str, Any], usual: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [
        _cell(said[one]) if one in said else f"({_cell(usual[one])})"
        for one in ("weight", *Quota._fields, _STORED)
    ]
    return (name, *cells, said.get("key", ""))


def _cell(value: float | None) -> str:
    if value is None:
        return "no limit"
    return f"{value:g}" if isinstance(value, float) else str(value)

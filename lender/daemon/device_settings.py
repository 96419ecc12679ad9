"""Settings of the phones that hang on a machine: `[phones]` of `lenderd.toml`."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lender.sensors.devices.phones import PhoneRules

_Word = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]


class PhonesSettings(BaseModel):
    """A program that tells of them, and when one may be lent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: list[_Word] = Field(min_length=1, max_length=64)
    """Prints a line of JSON for each phone; begins with the program's whole path."""
    battery_min: float = Field(default=0.5, ge=0, le=1)
    temperature_c_max: float = Field(default=40.0, ge=0, le=100)
    charging: bool = True
    """A phone is lent only while it is charged."""

    @field_validator("command")
    @classmethod
    def _whole_path(cls, command: list[str]) -> list[str]:
        if not PurePosixPath(command[0]).is_absolute():
            raise ValueError("must begin with the whole path of a program")
        return command

    @property
    def rules(self) -> PhoneRules:
        """When a phone may be lent."""
        return PhoneRules(self.battery_min, self.temperature_c_max, self.charging)

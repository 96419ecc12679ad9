"""Reads a program's settings from a TOML file and the environment (pydantic-settings).

Used by lenderd and the broker. The environment beats the file. A key that is not known is
refused, and the nearest known one named: a misspelt limit must not silently be no limit.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings
from pydantic_settings import SettingsError as UnreadableError

from lender.service.places import NoHomeError, configuration_home

_PORT_MAX = 65_535


class SettingsError(Exception):
    """A setting that can't be used; the message names the place, the key and the mend."""


def _known_level(level: str) -> str:
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return level


LogLevel = Annotated[str, AfterValidator(_known_level)]
"""How much a program tells of itself, by the names of Python's logging."""


def _address(text: str) -> str:
    host, colon, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (colon and not bare) or not port.isdecimal() or int(port) > _PORT_MAX:
        raise ValueError(f"{text!r} is no address: write it like 127.0.0.1:9464")
    return f"{bare or '127.0.0.1'}:{int(port)}"


ListenAddress = Annotated[str, AfterValidator(_address)]
"""`host:port`, port 0 for a free one; a port alone is one of 127.0.0.1."""

Settings = TypeVar("Settings", bound=BaseSettings)


def load(
    model: type[Settings],
    path: Path | None,
    overrides: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Return `model` filled from `overrides` (the command line), environment and `path`, if given.

    Raises:
        SettingsError: an unreadable file, an unknown key, or a value of the wrong kind.
    """
    known = list(model.model_fields)
    prefix = model.model_config.get("env_prefix", "")
    for name in environment:
        if prefix and name.startswith(prefix) and name[len(prefix) :].lower() not in known:
            raise _unknown("environment", name, [prefix + key.upper() for key in known])
    table = _read(path) if path else {}
    for key in table:
        if key not in known:
            raise _unknown(str(path), key, known)
    from_environment = {name.upper() for name in environment}
    # pydantic-settings ranks arguments above the environment, so the file steps back by itself.
    file_values = {k: v for k, v in table.items() if f"{prefix}{k}".upper() not in from_environment}
    try:
        return model(**{**file_values, **overrides})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        # Pydantic puts this before the words of our own validators.
        reason = fault["msg"].removeprefix("Value error, ")
        raise SettingsError(f"setting {key!r}: {reason}") from error
    except UnreadableError as error:
        raise SettingsError(f"{error}: a list is written as JSON, '[\"default\"]'") from error


def find_file(named: Path | None, usual: str) -> Path | None:
    """Return the file that was named, or `usual` in the user's configuration where there is one."""
    if named is not None:
        return named
    try:
        found = Path(configuration_home(), "lender", usual)
    except NoHomeError:
        return None
    return found if found.exists() else None


def handed_over(credential: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file of a secret that the service manager hands over; None: there is none.

    Args:
        credential: its name (systemd.exec(5), "Credentials").
        environment: of this process.
    """
    path = Path(environment.get("CREDENTIALS_DIRECTORY", ""), credential)
    try:
        return path if path.is_absolute() and path.is_file() else None
    except PermissionError:
        return path  # who comes to need it says so; what systemd runs after a stop does not


def given(model: type[BaseSettings], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the command line says about settings of `model`."""
    known = model.model_fields
    return {name: value for name, value in arguments.items() if name in known and value is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise SettingsError(f"{path} is not TOML: {error}") from error


def _unknown(place: str, key: str, known: list[str]) -> SettingsError:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return SettingsError(f"{place}: unknown setting {key!r}; {hint}")

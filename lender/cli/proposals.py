"""Grants that a configuration proposes: words for the owner to read, which allow nothing.

Who sets up many machines writes a file for each, by Nix or otherwise; `lender grants` shows it, and
`lender grant --proposed NAME` asks as if its owner had typed the options. What was agreed to is a
grant as any other. Nothing is kept of the proposal: one that comes to say something else is not
what the owner agreed to, and asks anew. Standard library only.
"""

import argparse
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from lender.core.consent import Grant
from lender.service.bounded_text import read_bounded
from lender.service.places import NoHomeError, configuration_home
from lender.state.folder import SYSTEM_STATE, StateFolder

PROPOSALS_MAX: Final = 100
"""More are not read: nobody agrees to as many one by one."""
LASTING: Final = r"\d+(\.\d+)?[smhd]"
"""An end that counts from the yes on."""

_SYSTEM = "/etc/lender/proposals"
_AGREE_S = 60.0
"""Between what was asked and when it was granted."""
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "submitter": (str,),
    "workload": (str,),
    "expires": (str,),
    "cpu": (int,),
    "mem": (str,),
    "gpu": (bool,),
    "vram": (str,),
    "device": (str,),
    "net": (str,),
    "net_metered": (bool,),
    "when": (str,),
    "budget": (str, list),
}
_NEEDED: Final = ("submitter", "workload", "expires")


class ProposalError(Exception):
    """It can't be asked; says why."""


def folder(state: StateFolder) -> Path | None:
    """Return where proposals to the owner of a state folder lie; None: no such place."""
    if state.name == SYSTEM_STATE:
        return Path(_SYSTEM)
    try:
        return Path(configuration_home(), "lender", "proposals")
    except NoHomeError:
        return None


def found(state: StateFolder) -> list[Path]:
    """Return the files of all proposals to the owner of a state folder, by name.

    None from a folder that may not be read: what is proposed there is to somebody else.
    """
    place = folder(state)
    if place is None:
        return []
    try:
        return sorted(place.glob("*.toml"))[:PROPOSALS_MAX]
    except OSError:
        return []


def find(named: str, state: StateFolder) -> Path:
    """Return the file that a name or a path means.

    Raises:
        ProposalError: there is none.
    """
    if "/" in named:
        return Path(named)
    known = {path.stem: path for path in found(state)}
    try:
        return known[named.removesuffix(".toml")]
    except KeyError:
        raise ProposalError(f"there are proposed: {', '.join(known) or 'none'}") from None


def read_words(path: Path) -> list[str]:
    """Return a proposal as arguments of `lender grant`.

    Raises:
        ProposalError: it can't be read, is no TOML, or says what is not known: that may restrict.
    """
    try:
        table = tomllib.loads(read_bounded(path))
    except OSError as error:
        raise ProposalError(f"can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ProposalError(f"is no TOML: {error}") from error
    return words(table)


def words(table: Mapping[str, Any]) -> list[str]:
    """Return what a file holds as arguments of `lender grant`.

    Raises:
        ProposalError: a key that is not known, is missing, or has a value of another kind.
    """
    for key, value in table.items():
        kinds = _KINDS.get(key)
        if kinds is None:
            raise ProposalError(f"unknown key {key!r}; known: {', '.join(_KINDS)}")
        if type(value) not in kinds or not all(isinstance(one, str) for one in _many(value)):
            raise ProposalError(f"{key!r} is to be {' or '.join(one.__name__ for one in kinds)}")
    if missing := [key for key in _NEEDED if key not in table]:
        raise ProposalError(f"{missing[0]!r} is missing")
    options = [
        f"--{key.replace('_', '-')}" if value is True else f"--{key.replace('_', '-')}={one}"
        for key, value in table.items()
        for one in _many(value)
        if key != "submitter" and value is not False
    ]
    return [*options, "--", table["submitter"]]


class QuietParser(argparse.ArgumentParser):
    """Raises instead of ending the process."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong.

        Raises:
            ProposalError: always.
        """
        raise ProposalError(message)


def agreed(asked: Grant, expires: str, holding: Iterable[Grant]) -> Grant | None:
    """Return the grant by which the owner agreed to a proposal as it stands, if one holds.

    Args:
        asked: what a yes would make now.
        expires: the end as it is written.
        holding: grants that hold.
    """
    lasting = re.fullmatch(LASTING, expires) is not None
    for grant in holding:
        same = replace(asked, id=grant.id, not_after=grant.not_after, granted_at=grant.granted_at)
        ends = asked.not_after - (asked.granted_at - grant.granted_at if lasting else 0.0)
        if same == grant and abs(grant.not_after - ends) < _AGREE_S:
            return grant
    return None


def _many(value: object) -> list[Any]:
    return value if isinstance(value, list) else [str(value)]

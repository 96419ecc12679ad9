"""What the owner's verbs have in common: the state folder, who may use it, a word to lenderd.

Standard library only: pause, revoke and status must start fast and work when nothing else does.
"""

import json
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lender.cli.exits import CommandError, Exit
from lender.cli.state_choice import Other, choose, serves
from lender.cli.words import complain, printable
from lender.daemon.control_client import UnreachableError, ask
from lender.state.folder import CONTROL_SOCKET, StateFolder

if TYPE_CHECKING:  # loads only where there is something to parse: see `main`
    import argparse

ANSWER_S = 0.5
"""lenderd answers in this time or counts as silent."""

DEFAULTS = {"json": False, "state": None}
"""Of the options of every owner verb."""


def add_options(parser: "argparse.ArgumentParser", *, document: bool = True) -> None:
    """Add the options of every owner verb; `document`: it can print JSON."""
    if document:
        parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument(
        "--state",
        metavar="DIR",
        help="state folder; else $LENDER_STATE, or that of the lenderd that runs",
    )


def find_state(args: "argparse.Namespace", *, as_guest: bool = False) -> StateFolder:
    """The state folder that the options mean, whether or not it exists: see `choose`."""
    return choose(args.state, as_guest=as_guest).state


def open_state(args: "argparse.Namespace") -> StateFolder:
    """The existing state folder, for its owner alone; root acts as the owner.

    Raises:
        CommandError: there is none (5), or it belongs to another user (4).
    """
    choice = choose(args.state)
    state = choice.state
    warn_of(choice.others(), state)
    if not is_owner(state):
        raise CommandError(
            Exit.NOT_PERMITTED,
            f"{state.name} belongs to uid {state.owner_uid()}: only that user and root may do "
            "this; another lender is named with --state",
        )
    become_owner(state)
    return state


def warn_of(others: list[Other], state: StateFolder) -> None:
    """Say which folder the verb is about where it might be another, and how to mean that one."""
    if not others:
        return
    said = [f"This is about {state.name}{'' if serves(state) else ', where no lenderd runs'}."]
    for path, uid in others:
        whose = f"of uid {uid}" if uid is not None else "out of your reach: its owner or root can"
        said.append(f"! Another lenderd is alive ({whose}): add --state {_quoted(path)}")
    complain(*map(printable, said))


def _quoted(path: str) -> str:
    """For a shell; what the standard library has for it costs each verb milliseconds."""
    plain = path.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum()
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


def is_owner(state: StateFolder) -> bool:
    """Whether this user may act as the owner of an existing state folder.

    Raises:
        CommandError: there is none.
    """
    try:
        return os.geteuid() in (0, state.owner_uid())
    except OSError as error:
        raise CommandError(
            Exit.UNREACHABLE,
            f"no lender at {state.name}: {error.strerror}; name its state folder with --state",
        ) from error


def become_owner(state: StateFolder) -> None:
    """As root, turn into the folder's owner for good.

    So nothing in a folder that another user writes can point root at a stranger's processes or
    files, and what is written here stays readable for that user's lenderd.
    """
    status = os.stat(state.name)
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups([])
        # Of root these set the real and the saved id, too (setuid(2)).
        os.setgid(status.st_gid)
        os.setuid(status.st_uid)


class Told(NamedTuple):
    """How lenderd took a request.

    Attributes:
        outcome: `answered`; `refused` (it answered with an error); `silent` (the socket takes
            connections, but no answer came in time, or it is gone while lenderd is alive);
            `absent` (no lenderd runs).
        reply: the answer; empty without one.
        reason: why it is not `answered`, in words.
    """

    outcome: Literal["answered", "refused", "silent", "absent"]
    reply: dict[str, Any]
    reason: str = ""


def tell(
    state: StateFolder,
    verb: str,
    timeout_s: float = ANSWER_S,
    fields: dict[str, Any] | None = None,
) -> Told:
    """Ask lenderd to carry out `verb`; never raises for a lenderd that is in trouble."""
    socket = state.inside(CONTROL_SOCKET)
    try:
        reply = ask(socket, {"verb": verb, **(fields or {})}, timeout_s)
    except UnreachableError as error:
        if not error.silent and serves(state):
            reason = f"its socket {socket}: {error}; restart it if that stays so"
            return Told("silent", {}, reason)
        return Told("silent" if error.silent else "absent", {}, str(error))
    if not reply["ok"]:
        fault = reply.get("error")
        message = fault.get("message") if isinstance(fault, dict) else None
        return Told("refused", reply, str(message))
    return Told("answered", reply)


def print_json(verb: str, fields: dict[str, Any]) -> None:
    """Print the verb's one JSON document."""
    print(json.dumps({"schema": f"lender.{verb}/1", **fields}, indent=2))

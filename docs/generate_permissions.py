# noqa: INP001 - a script, run by its path
"""Write docs/permissions.md: the table of who may publish and subscribe to what, from the code.

`--check` writes nothing and fails when the file is missing or stale.
"""

import sys
from pathlib import Path
from typing import get_args

from generated import write_or_check

from lender.protocol.house_rights import HOUSE_RIGHTS
from lender.protocol.permissions import ANSWERS, HOME, RIGHTS, Role

FILE = Path(__file__).parent / "permissions.md"

_HEAD = """\
# Who may do what

Written by `make schemas` from the [code](../lender/protocol/permissions.py). The scopes of a
deployment's signing keys are made of the same table (`lender-broker init`), so it is the server
that holds everybody to it; what is not in here is refused. `make permissions` tries all of it on
a real server and prints what came out.

`{{subject()}}` is the user's own public key, `{{tag(class)}}` each class that his token names,
`{{tag(submitter)}}` each submitter whom those classes name.
To *answer* is to publish to where a message asks for its answer, on the connection that it came on.
Each role lives in an account of the server; what another account is concerned with crosses by an
import of exactly that subject ([0026](decisions/0026-identity.md)).
"""


def text() -> str:
    """Return the whole file."""
    return "\n".join([_HEAD, *(_section(role) for role in get_args(Role)), _house()])


def _house() -> str:
    lines = [
        "## The house",
        "",
        "lenderd on the MQTT server of its owner's house ([home automation](home-automation.md)).",
        "That is no role of a deployment, whose servers take no MQTT: whoever runs the house's",
        "server gives these rights, and to subscribe to each topic of the owner's signals.",
        "",
        "| May | Topic | Why |",
        "|---|---|---|",
        *(f"| {one.verb} | `{one.topic}` | {one.why} |" for one in HOUSE_RIGHTS),
    ]
    return "\n".join([*lines, ""])


def _section(role: Role) -> str:
    rights = [one for one in RIGHTS if one.role == role]
    lines = [f"## {role}", "", f"Lives in the account `{HOME[role]}`.", ""]
    if role in ANSWERS:
        count_max, within_s = ANSWERS[role]
        times = "any number of times" if count_max is None else f"{count_max} time"
        lines[-1:] = [f"Answers a message {times}, for {within_s:g} s.", ""]
    lines += ["| May | Subject | Of account | Why |", "|---|---|---|---|"]
    lines += [f"| {one.verb} | `{one.subject}` | {one.towards} | {one.why} |" for one in rights]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(write_or_check(FILE, text(), sys.argv[1:]))

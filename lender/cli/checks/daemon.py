"""lenderd as it answers: its server, the sources of the owner's presence."""

import socket
from collections.abc import Iterator

from lender.cli.checks.check import Check
from lender.cli.checks.places import not_there, places_of
from lender.cli.owner import Told
from lender.cli.words import printable

_CONNECT_S = 2.0


def lenderd(told: Told) -> Iterator[Check]:
    """Whether it runs and answers."""
    if told.outcome == "answered":
        yield Check("daemon", "ok", f"lenderd answers: {told.reply.get('phase')}")
    elif told.outcome == "absent":
        mend = "lender install, or start lenderd by hand"
        yield Check("daemon", "blocker", f"lenderd does not run ({told.reason})", mend)
    else:
        mend = "restart lenderd; its log says why"
        yield Check("daemon", "blocker", f"lenderd gives no answer ({told.reason})", mend)


def nats(told: Told) -> Iterator[Check]:
    """Whether its server can be reached from here, and whether it lets lenderd in."""
    url = str(told.reply.get("url") or "").split(",")[0]
    if not url:
        return
    place = places_of(url)[0]
    try:
        socket.create_connection(place, _CONNECT_S).close()
    except OSError as error:
        mend = "ask its operator, or mend lenderd's setting `url`"
        yield not_there("nats", place, error.strerror or str(error), mend)
        return
    if told.reply.get("connected"):
        yield Check("nats", "ok", f"connected to {url}")
    else:
        text = f"{url} can be reached, but lenderd is not connected to it"
        yield Check("nats", "blocker", text, "lenderd's log says what the server refuses")


def home(told: Told) -> Iterator[Check]:
    """Whether the house's MQTT server is reached, where the owner has named one."""
    home = told.reply.get("home")
    if not isinstance(home, dict):
        return
    server = home.get("server")
    if home.get("connected"):
        yield Check("home", "ok", f"connected to the MQTT server {server} as {home.get('node')}")
    else:
        fault = printable(str(home.get("fault") or "not yet"))
        text = f"not connected to the MQTT server {server}: {fault}"
        yield Check("home", "warning", text, "see [mqtt] in lenderd.toml; docs/home-automation.md")
    if not home.get("key"):
        text = "there is no key for commands by MQTT, so none is followed"
        yield Check("home-key", "info", text, "lender home")
    elif home.get("refused_strange"):
        text = f"a command by MQTT was not followed: {printable(str(home['refused_strange']))}"
        yield Check("home-command", "warning", text, "lender home prints the key that counts")


def presence(told: Told) -> Iterator[Check]:
    """Which source tells whether the owner is there; none on a desktop means always there."""
    comfort = told.reply.get("comfort")
    if not comfort:
        return
    sources = ", ".join(map(str, comfort.get("sources") or []))
    if sources:
        yield Check("presence", "ok", f"presence is told by {sources}")
    elif comfort.get("desktop"):
        text = "no source tells whether you are here, so you count as present"
        yield Check("presence", "warning", text, "start `lender agent` with your session")
    else:
        yield Check("presence", "ok", "nobody sits at this machine")

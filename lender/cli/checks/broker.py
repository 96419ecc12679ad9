"""Which broker leads, and whether it speaks our version: as it has left word on the server."""

import importlib.metadata
from collections.abc import Iterator

from lender.cli.checks.check import Check
from lender.cli.words import printable
from lender.link.server_words import Leading
from lender.protocol.version import PROTOCOL

_SERVE = "its operator: lender-broker serve"


def leading_checks(leading: Leading | None) -> Iterator[Check]:
    """Hold what the broker that leads said of itself against what we are.

    Args:
        leading: its word; None: none ever led.
    """
    if leading is None or leading.broker is None:
        text = "no broker leads just now: work waits until one does"
        yield Check("broker", "warning", text, _SERVE)
        return
    version = printable(leading.version)
    if leading.protocol is None:
        text = "the broker is of an earlier version, which does not say what it speaks"
        yield Check("broker.protocol", "warning", text, "its operator upgrades lender-broker")
    elif leading.protocol != PROTOCOL:
        text = (
            f"the broker (lender {version}) speaks version {leading.protocol} of the protocol, "
            f"and we {PROTOCOL}: neither understands the other"
        )
        newer = leading.protocol > PROTOCOL
        mend = "pip install --upgrade lender" if newer else "its operator upgrades lender-broker"
        yield Check("broker.protocol", "blocker", text, mend)
    else:
        ours = importlib.metadata.version("lender")
        text = f"the broker is lender {version}, we are {ours}; both speak protocol {PROTOCOL}"
        yield Check("broker.protocol", "ok", text)

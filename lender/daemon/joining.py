"""Connects lenderd to its fleet, by its settings or by what `lender enroll` has left."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from lender.daemon.settings import DaemonSettings
from lender.daemon.token_keeper import TokenKeeper
from lender.link.connection import ConnectError, Connection, Listener, StrangerError, connect
from lender.link.credentials import without_credentials
from lender.link.membership import Membership

log = logging.getLogger(__name__)

CONNECT_S = 20.0
AGAIN_S = 1.0
"""Between tries in which it is looked whether the machine was enrolled meanwhile."""


async def join(
    said: DaemonSettings,
    enrolment: Path,
    public_key: str,
    keeper: TokenKeeper,
    on_state: Listener,
    heed: Callable[[DaemonSettings], None],
) -> Connection:
    """Connect, however long it takes: whoever is not let in yet may be, meanwhile.

    Args:
        said: settings; what they say goes before enrolment.
        enrolment: folder of the machine's membership.
        public_key: of the lender.
        keeper: looks after what enrolment has left, where that is used.
        on_state: told of every change of state.
        heed: told with which settings it is tried.
    """
    told = ""
    while True:
        enrolled = Membership.read(enrolment)
        settings = said.joined(enrolled)
        heed(settings)
        ours = enrolled is not None and settings.credentials == enrolled.credentials
        keeper.keep(enrolled if ours else None)
        try:
            connection = await connect(
                settings.url,
                name=f"lender-{settings.name}",
                credentials=settings.credentials,
                ca=settings.ca,
                inbox_prefix=f"_INBOX_{public_key}",
                on_state=on_state,
                timeout_s=CONNECT_S,
                stays=ours,
            )
        except StrangerError as error:
            trouble = f"{error}: `lender enroll {without_credentials(settings.url)}`"
        except ConnectError as error:
            trouble = str(error)
        else:
            keeper.use(connection)
            return connection
        if trouble != told:
            log.warning("%s; trying again", trouble)
        told = trouble
        await asyncio.sleep(AGAIN_S)

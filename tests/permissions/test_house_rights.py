"""lenderd on a house's MQTT server, which is a real nats-server: its own topics, and no others."""

from pathlib import Path

import pytest

from lender.link.connection import ConnectError, connect
from permissions.house import PUBLISHES, SUBSCRIBES, house, taken


async def test_the_server_does_as_the_table_says(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        published, subscribed = await taken(one)
        assert published == {*PUBLISHES}
        assert subscribed == {*SUBSCRIBES}
        # By NATS's own protocol, which knows more subjects, the user is not let in at all.
        with pytest.raises(ConnectError, match="uthoriz"):
            await connect(one.url, name="x", credentials=one.credentials, timeout_s=2)

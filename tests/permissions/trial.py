"""A deployment on a real server, people with its credentials, and what the server refuses them."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from broker.deployment import contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment
from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.credentials import credentials
from lender.link.embedded import EmbeddedServer
from lender.link.hardened import HardenedClient
from lender.protocol import streams
from lender.protocol.permissions import STRANGERS_INBOX, permits
from permissions.people import (
    ALICE,
    BOB,
    BROKER,
    CLASS,
    OTHER_CLASS,
    PEOPLE,
    Deed,
    Person,
    tried,
)

NOW = 1_790_000_000.0
NONE = Certificates("", "", "", "")

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')


def deterministic() -> contents.Entropy:
    """Entropy that is none."""
    numbers = iter(range(1, 256))
    return lambda size: bytes([next(numbers)] * size)


class Trial:
    """A server that knows a deployment's people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deployment = Deployment(folder / "deployment")
        made = contents.new_deployment(
            self.deployment.folder, "trial", 4222, NONE, deterministic(), NOW
        )
        self.deployment.write(made)
        store = folder / "nats"
        config = self.deployment.embedded_config(store)
        self.server = EmbeddedServer(store, extra_config=config)

    def credentials(self, person: Person) -> Path | None:
        """The file that lets a person in; a stranger has none."""
        if person.role == "stranger":
            return None
        path = self.folder / f"{person.name.replace(' ', '-')}.creds"
        token = self.deployment.vouch(person.role, person.key.public, person.name, person.tags, NOW)
        path.write_text(credentials(token, person.key.seed))
        path.chmod(0o600)
        return path

    async def connect(self, person: Person) -> Connection:
        """Connect as our programs do."""
        prefix = {"broker": "_INBOX", "stranger": STRANGERS_INBOX}.get(
            person.role, f"_INBOX_{person.key.public}"
        )
        return await connect(
            self.server.url,
            name=person.name,
            credentials=self.credentials(person),
            inbox_prefix=prefix,
            timeout_s=10,
        )

    async def refused(self, person: Person, deed: Deed, subjects: Iterable[str]) -> set[str]:
        """What the server refuses of all this, in lower case as nats-py reports it."""
        said: set[str] = set()

        async def hear(error: Exception) -> None:
            found = _VIOLATION.search(str(error).lower())
            assert found, error
            said.add(found[2])

        nc = HardenedClient()
        path = self.credentials(person)
        await nc.connect(
            self.server.url,
            user_credentials=None if path is None else str(path),
            error_cb=hear,
            allow_reconnect=False,
        )
        try:
            for subject in subjects:
                if deed == "publish":
                    await nc.publish(subject, b"")
                else:
                    await nc.subscribe(subject)
            await nc.flush(timeout=20)
        finally:
            await nc.close()
        return said

    async def differences(self, person: Person, deed: Deed) -> list[str]:
        """Where the server does otherwise than the table says; empty is right."""
        subjects = tried(deed)
        refused = await self.refused(person, deed, subjects)
        may = person.may(deed)
        return [
            f"{person.name} may{'' if permits(may, one) else ' not'} {deed} {one}"
            for one in subjects
            if permits(may, one) == (one.lower() in refused)
        ]


@contextlib.asynccontextmanager
async def trial(folder: Path) -> AsyncIterator[Trial]:
    """Start it, with the streams and queues that the broker makes."""
    one = Trial(folder)
    await one.server.start()
    try:
        async with await one.connect(BROKER) as connection:
            jetstream = JetStream(connection)
            buckets = [
                config(whose.public)
                for whose in (ALICE, BOB)
                for config in (streams.bucket_config, streams.left_config)
            ]
            for config in (*streams.stream_configs(), streams.leader_config(), *buckets):
                await jetstream.ensure_stream(config)
            for queue in (CLASS, OTHER_CLASS):
                await jetstream.ensure_consumer(streams.WORK, streams.consumer_config(queue))
        yield one
    finally:
        one.server.kill()


__all__ = ["PEOPLE", "Trial", "trial"]

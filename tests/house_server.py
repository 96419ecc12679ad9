"""A house's MQTT server as `deploy/mqtt` ships it and docs/home-automation.md sets it up."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from aiomqtt import Client
from vouching_server import GUARD, free_port

from lender.link.embedded import find_server
from lender.protocol.house_rights import house_topics, nats_subject

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "deploy" / "mqtt" / "server.conf"
PAGE = ROOT / "docs" / "home-automation.md"
WITHIN_S = 30.0

WITNESS = '{ user: witness, password: "of witness", permissions: { publish: [>], subscribe: [>] } }'
"""One who reads and writes everything, as the tests do and nobody in the house."""


def machine(node: str, signals: Sequence[str] = ()) -> str:
    """A user for one more machine, made of the table of rights."""
    verbs: tuple[Any, ...] = ("publish", "subscribe")
    rights = ", ".join(
        f"{verb}: {json.dumps([nats_subject(one) for one in house_topics(verb, node, signals)])}"
        for verb in verbs
    )
    return (
        f'{{ user: {node}, password: "of {node}", allowed_connection_types: [MQTT], '
        f"permissions: {{ {rights} }} }}"
    )


class HouseServer:
    """One server. Its own users have the passwords that the page's commands made."""

    def __init__(self, folder: Path, *users: str) -> None:
        """Prepare.

        Args:
            folder: as `/` in the page.
            users: more than the shipped file has.
        """
        if shutil.which("openssl") is None:
            pytest.skip("openssl is missing")
        self.folder = folder
        self.settings = folder / "etc" / "nats"
        self.settings.mkdir(parents=True)
        self.ca = self.settings / "house.pem"
        self.mqtt_port, self.port = free_port(), free_port()
        text = SHIPPED.read_text()
        for shipped, here in (
            ("/var/lib/nats", str(folder / "store")),
            ("/etc/nats/house.pem", str(self.ca)),
            ("/etc/nats/house.key", str(self.settings / "house.key")),
            ('"0.0.0.0:8883"', f'"127.0.0.1:{self.mqtt_port}"'),
            ('"127.0.0.1:4222"', f'"127.0.0.1:{self.port}"'),
            ("  users: [\n", "\n    ".join(("  users: [", *users)) + "\n"),
        ):
            assert text.count(shipped) == 1, shipped
            text = text.replace(shipped, here)
        (self.settings / "server.conf").write_text(text)
        self._file = folder / "etc" / "nats-server.conf"
        self._file.write_text("include nats/server.conf\n")
        self._make_keys()
        made = re.findall(
            r'^([A-Z]+): "(.+)"$', (self.settings / "passwords.conf").read_text(), re.MULTILINE
        )
        self.passwords = {name.lower(): password for name, password in made}
        self.passwords |= {node: f"of {node}" for node in re.findall(r'"of (\w+)"', text)}
        self._process: subprocess.Popen[bytes] | None = None

    def _make_keys(self) -> None:
        """Do as the page says."""
        (commands,) = (one for one in PAGE.read_text().split("```\n") if "openssl req" in one)
        assert commands.count("house.lan") == 2
        subprocess.run(
            ["sh", "-euc", commands.replace("house.lan", "localhost")],
            cwd=self.settings,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """Have nats-server itself say whether the file is right."""
        return subprocess.run(
            [find_server(), "-t", "-c", self._file],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    async def __aenter__(self) -> Self:
        log = self.folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a start waits for nothing
                [find_server(), "-c", self._file], stdout=out, stderr=out
            )
        GUARD.watch(self._process.pid)
        async with asyncio.timeout(WITHIN_S):
            while not self._listens():
                assert self._process.poll() is None, log.read_text()
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)

    def _listens(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.mqtt_port)) == 0

    @property
    def url(self) -> str:
        """As the setting has it."""
        return f"mqtts://localhost:{self.mqtt_port}"

    @property
    def nats_url(self) -> str:
        """For NATS's own protocol."""
        return f"nats://127.0.0.1:{self.port}"

    def trusting(self) -> ssl.SSLContext:
        """As strictly as later Pythons do by themselves."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def client(self, user: str, **more: Any) -> Client:  # noqa: ANN401 - the library's
        """Connect as one of its users."""
        options = {
            "username": user,
            "password": self.passwords.get(user),
            "tls_context": self.trusting(),
        }
        return Client("localhost", self.mqtt_port, **(options | more))

    def credentials(self, user: str) -> Path:
        """Write the file that the setting names."""
        path = self.folder / user
        path.touch(mode=0o600)
        path.write_text(f"{user}:{self.passwords[user]}\n")
        return path


@asynccontextmanager
async def seeing(client: Client, *topics: str) -> AsyncIterator[list[tuple[str, bytes, bool]]]:
    """All that comes on some topics, as it comes: topic, payload, retained."""
    seen: list[tuple[str, bytes, bool]] = []
    await client.subscribe([(topic, 0) for topic in topics])

    async def watch() -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            seen.append((str(message.topic), message.payload, message.retain))

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

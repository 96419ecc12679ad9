"""A server on what a deployment has made, by TLS, as an operator runs it by hand."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker_parts import COMMAND

from broker.deployment import certificates, contents
from broker.deployment.folder import Deployment
from broker.deployment.tokens import Key
from deploy.local.guard import Guard
from lender.link.connection import ConnectError, Connection, connect
from lender.link.credentials import credentials
from lender.link.embedded import find_server
from lender.link.way_in import read_way_in
from lender.protocol.permissions import Role

GUARD = Guard()
"""Ends what is left where the tests are killed."""

HERE = ("127.0.0.1", "localhost")


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class VouchingServer:
    """nats-server with the deployment's own file.

    `folder` gets the deployment and everybody's credentials.
    """

    def __init__(
        self, folder: Path, hosts: tuple[str, ...] = HERE, certified_at: float | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.deployment = Deployment(folder / "deployment")
        now = time.time()
        made = certificates.make("trial", hosts, certified_at or now)
        self.deployment.write(
            contents.new_deployment(
                self.deployment.folder, "trial", self.port, made, os.urandom, now
            )
        )
        self.ca = self.deployment.folder / contents.AUTHORITY
        self._file = self.deployment.folder / contents.SERVER_FILE
        # Tests open no port to others.
        self._file.write_text(self._file.read_text().replace("0.0.0.0", "127.0.0.1"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "server.log").read_text()

    async def start(self) -> None:
        """Start it; returns when it lets the broker in."""
        process = self._spawn()
        end = time.monotonic() + 30
        while True:
            try:
                await (await self.broker(1.0)).close()
            except ConnectError:
                assert time.monotonic() < end, self.log()
                assert process.poll() is None, self.log()
            else:
                return

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            command = [find_server(), "-c", self._file]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        GUARD.watch(self._process.pid)
        return self._process

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def broker(self, timeout_s: float = 10.0) -> Connection:
        """Connect as the broker does."""
        file = self.deployment.broker_credentials
        return await connect(
            self.url, name="broker", credentials=file, ca=self.ca, timeout_s=timeout_s
        )

    def let_in(self, role: Role, name: str, *tags: str, key: Key | None = None) -> Path:
        """Make the file that lets somebody in as one of a role."""
        key = key or Key.make("user", os.urandom(32))
        token = self.deployment.vouch(role, key.public, name, tags, time.time())
        path = self.folder / f"{name}.creds"
        path.touch(mode=0o600)
        path.write_text(credentials(token, key.seed))
        return path

    async def connect(self, path: Path, timeout_s: float = 10.0) -> Connection:
        """Connect by a file of `let_in`."""
        key = read_way_in(path).public_key
        return await connect(
            self.url,
            name=path.stem,
            credentials=path,
            ca=self.ca,
            inbox_prefix=f"_INBOX_{key}",
            timeout_s=timeout_s,
        )

    def rotate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`lender-broker rotate`, as the operator types it."""
        where = ("--deployment", str(self.deployment.folder), "--state", str(self.folder / "none"))
        return subprocess.run(
            [*COMMAND, "rotate", *arguments, *where, "--url", self.url, "--ca", str(self.ca)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    async def lets_in(self, path: Path) -> bool:
        """Whether it lets somebody in; one that says nothing for a second is asked again."""
        for _ in range(20):
            try:
                await (await self.connect(path, 1.0)).close()
            except ConnectError as error:
                if "uthorization" in str(error):
                    return False
            else:
                return True
        raise AssertionError(self.log())


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[VouchingServer]:
    """One that runs, on a deployment as `init` makes it."""
    server = VouchingServer(tmp_path)
    await server.start()
    yield server
    server.kill()

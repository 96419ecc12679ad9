"""A cluster from what `lender-broker init --cluster` makes: it works, and nobody joins unasked."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import nats as nats_py
import psutil
import pytest
from clustered_fleet import HOSTS, ClusteredFleet, Member
from eavesdropper import Eavesdropper
from enrolling_fleet import EnrollingFleet
from nats_cluster import free_ports
from nats_server import until

from broker.deployment import certificates, contents, server_config
from broker.deployment.cluster import ROUTES_AUTHORITY, ROUTES_AUTHORITY_KEY
from broker.deployment.contents import Pair
from broker.deployment.servers import PassedOverError, servers
from broker.deployment.tokens import Key, encode
from deploy.local.fleet import wait_until
from lender.client import Client
from lender.link.connection import ConnectError, Connection, State, connect
from lender.link.credentials import credentials
from lender.link.embedded import EmbeddedServer
from lender.protocol import subjects

WITHIN_S = 1.0
PATIENT_S = 30.0
SPY = "127.0.0.5"
UNKNOWN = "certificate signed by unknown authority"
SAID = subjects.control(subjects.ALL_LENDERS)


@pytest.fixture(scope="module")
def fleet() -> Iterator[ClusteredFleet]:
    folder = Path(tempfile.mkdtemp(prefix="lender-cluster-"))
    folder.chmod(0o711)
    try:
        with ClusteredFleet(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def known_key(fleet: ClusteredFleet, name: str) -> tuple[Path, str]:
    """Credentials of a lender that was let in."""
    key = Key.make("user", os.urandom(32))
    token = fleet.deployment.vouch("lender", key.public, name, (), time.time())
    path = fleet.folder / f"{name}.creds"
    path.touch(mode=0o600)
    path.write_text(credentials(token, key.seed))
    return path, key.public


async def as_lender(
    fleet: ClusteredFleet, member: Member, path: Path, key: str, timeout_s: float = PATIENT_S
) -> Connection:
    return await connect(
        member.url,
        name=path.stem,
        credentials=path,
        ca=fleet.ca,
        inbox_prefix=f"_INBOX_{key}",
        timeout_s=timeout_s,
    )


async def joined(fleet: ClusteredFleet) -> dict[str, set[str]]:
    """Which servers each server has a route to, by their names."""
    async with servers(fleet.deployment, fleet.url, fleet.ca) as running:
        answers = await running._ask_all("$SYS.REQ.SERVER.PING.ROUTEZ", b"", quiet_s=0.3)
    told = [json.loads(answer) for answer in answers]
    return {
        one["server"]["name"]: {route["remote_name"] for route in one["data"]["routes"]}
        for one in told
    }


async def until_whole(fleet: ClusteredFleet) -> None:
    wanted = {host: set(HOSTS) - {host} for host in HOSTS}
    async with asyncio.timeout(PATIENT_S):
        while await joined(fleet) != wanted:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.1)


async def test_work_is_done_whichever_server_each_was_let_in_by(fleet: ClusteredFleet) -> None:
    with Eavesdropper(fleet.folder):
        await until_whole(fleet)
        first, second, third = fleet.members
        desk = await asyncio.to_thread(fleet.lend_by, second, "desk")
        await asyncio.to_thread(fleet.submit_by, third, "demo")
        fleet.grant(desk, "command")
        await asyncio.to_thread(fleet.wait_lending, desk)
        async with Client(key=fleet.key, connect_timeout_s=PATIENT_S) as demo:
            job = await demo.submit(["sh", "-c", "cat in"], inputs={"in": b"across"})
            result = await job.result(timeout_s=60)
            assert result.terminal.state == "succeeded", result.terminal
        with pytest.raises(ConnectError, match="stranger"):
            await connect(first.url, name="nobody", ca=fleet.ca, timeout_s=PATIENT_S)


async def test_a_server_knows_all_accounts_before_it_could_hear_of_one_by_a_route(
    fleet: ClusteredFleet, tmp_path: Path
) -> None:
    """What it hears of just when somebody uses it here, it may refuse until it is restarted."""
    config = fleet.deployment.embedded_config(tmp_path)
    server = EmbeddedServer(tmp_path, name="alone", extra_config=config)
    try:
        await server.start()
        async with servers(fleet.deployment, server.url, None) as alone:
            (told,) = await alone._ask_all("$SYS.REQ.SERVER.PING.ACCOUNTZ", b"", quiet_s=0.0)
        known = set(json.loads(told)["data"]["accounts"])
    finally:
        server.kill()
    assert set(fleet.deployment.identities().accounts.values()) <= known


async def test_a_server_that_refuses_an_account_for_good_is_told_it_anew(
    fleet: ClusteredFleet, tmp_path: Path
) -> None:
    """As one may that heard of it by a route: here it forgets the account, and is told it anew."""
    who, operator = fleet.deployment.identities(), fleet.deployment.key(contents.OPERATOR_KEY)
    config = fleet.deployment.embedded_config(tmp_path).replace(
        "full,", "full, allow_delete: true,"
    )
    server = EmbeddedServer(tmp_path, name="alone", extra_config=config)
    token = fleet.deployment.tokens()["core"]
    gone = {"type": "generic", "accounts": [who.accounts["core"]]}
    forgets = encode(operator.public, "x", gone, operator, time.time())
    broker = fleet.deployment.broker_credentials
    try:
        await server.start()
        async with servers(fleet.deployment, server.url, None) as alone:
            await alone.update([token])
            await (await connect(server.url, name="broker", credentials=broker)).close()
            await alone._ask_all("$SYS.REQ.CLAIMS.DELETE", forgets.encode(), quiet_s=0.0)
            with pytest.raises(PassedOverError, match="alone took what is new of core,"):
                await alone.update([token])
        with pytest.raises(ConnectError, match="Authorization Violation"):
            await connect(server.url, name="broker", credentials=broker, timeout_s=1.0)
        said = EnrollingFleet.broker_verb(fleet, "rotate", "--accounts", "--url", server.url)
        assert said.returncode == 0, said.stderr
        await (await connect(server.url, name="x", credentials=broker, timeout_s=PATIENT_S)).close()
    finally:
        server.kill()


async def test_what_is_taken_back_is_taken_back_on_every_server(fleet: ClusteredFleet) -> None:
    first, second, _ = fleet.members
    path, key = known_key(fleet, "attic")
    lines = [await as_lender(fleet, one, path, key) for one in fleet.members]
    where = ("--url", first.url)
    turned = fleet.broker_verb("rotate", "--role", "lender", *where)
    assert turned.returncode == 0, turned.stderr
    heir, heirs_key = known_key(fleet, "heir")
    for member in fleet.members:
        await (await as_lender(fleet, member, heir, heirs_key)).close()
    assert all(line.connected for line in lines)
    revoked = fleet.broker_verb("revoke", key, *where)
    assert revoked.returncode == 0, revoked.stderr
    await until(lambda: not any(line.connected for line in lines), WITHIN_S)
    for line in lines:
        await line.close()
    second.kill()
    second.start()  # with the accounts as they were at first
    await until_whole(fleet)
    for member in fleet.members:
        with pytest.raises(ConnectError):
            await as_lender(fleet, member, path, key, WITHIN_S)
    # What its machine would get of the deployment now knows it, too.
    accounts = fleet.deployment.read(contents.ACCOUNTS_FILE)
    brought = fleet.broker_verb("rotate", "--accounts", *where)
    assert (brought.returncode, "WARNING" in brought.stdout) == (0, False), brought
    for path_ in fleet.deployment.accounts_files():
        assert fleet.deployment.read(path_) == accounts
    assert fleet.broker.alive()


class Spy:
    """A server of somebody else's that wants to be one of the cluster's, and hears what it can."""

    def __init__(
        self,
        fleet: ClusteredFleet,
        folder: Path,
        routes: list[str],
        tls: str,
        listen: str | None = None,
    ) -> None:
        self.fleet = fleet
        who = fleet.deployment.identities()
        self.accounts = {"system": who.system, **who.accounts}
        # Nothing of these is secret.
        users = "".join(
            f"  {key}: {{ users: [{{ user: {name}, password: x }}] }}\n"
            for name, key in self.accounts.items()
        )
        here = listen or f"{SPY}:{free_ports(1)[0]}"
        named = ", ".join(f'"nats://{one}"' for one in routes)
        self.server = EmbeddedServer(
            folder,
            name="spy",
            extra_config=f"accounts {{\n{users}}}\nsystem_account: {who.system}\n"
            f'cluster {{ name: fleet, listen: "{here}", routes: [{named}]\n{tls} }}\n',
        )
        self.heard: list[str] = []

    async def __aenter__(self) -> Self:
        await self.server.start()
        self._lines = []
        for name in self.accounts:
            if name == "system":
                continue
            line = await nats_py.connect(self.server.url, user=name, password="x")
            await line.subscribe(">", cb=self._hear)
            await line.flush()
            self._lines.append(line)
        return self

    async def __aexit__(self, *_: object) -> None:
        for line in self._lines:
            await line.close()
        self.server.kill()

    async def flush(self) -> None:
        for line in self._lines:
            await line.flush()

    async def _hear(self, msg: "nats_py.aio.msg.Msg") -> None:
        self.heard.append(msg.subject)


def shown_by(folder: Path, authority: Path, pair: Pair) -> str:
    """The part of a configuration that shows this certificate to other servers."""
    (folder / "spy.pem").write_text(pair.certificate)
    (folder / "spy.key").write_text(pair.key)
    return (
        f'tls {{ cert_file: "{folder}/spy.pem", key_file: "{folder}/spy.key", '
        f'ca_file: "{authority}" }}'
    )


async def something_is_said(fleet: ClusteredFleet, members: Sequence[Member]) -> None:
    """A message in the account of the streams, from each server."""
    for member in members:
        try:
            connected = await connect(
                member.url,
                name="broker",
                credentials=fleet.deployment.broker_credentials,
                ca=fleet.ca,
                timeout_s=PATIENT_S,
            )
        except ConnectError as error:
            raise AssertionError(member.said_of_accounts()) from error
        async with connected as line:
            await line.publish(SAID, b"")
            await line.nc.flush()


@pytest.mark.parametrize("shows", ["nothing", "another authority's", "a server's for clients"])
async def test_a_server_that_the_operator_did_not_make_never_joins(
    fleet: ClusteredFleet, tmp_path: Path, shows: str
) -> None:
    made = fleet.deployment.folder / contents.CLUSTER_FOLDER / HOSTS[0]
    # That it could believe us is no secret of ours either.
    ours = made / server_config.ROUTES_AUTHORITY
    if shows == "nothing":
        tls = ""
    elif shows == "another authority's":
        other = certificates.make_authority("fleet routes", time.time())
        tls = shown_by(
            tmp_path, ours, certificates.issue(other, "route", [SPY], time.time(), calls=True)
        )
    else:
        files = (made / server_config.CERTIFICATE, made / server_config.KEY)
        tls = shown_by(tmp_path, ours, Pair(*(one.read_text() for one in files)))
    await until_whole(fleet)
    routes = [f"{host}:{fleet.route_port}" for host in HOSTS]

    def refused() -> list[int]:
        return [one.log().count("TLS route handshake error") for one in fleet.members]

    before = refused()
    async with Spy(fleet, tmp_path / "spy", routes, tls) as spy:

        def tried_twice_everywhere() -> bool:
            return all(now >= then + 2 for then, now in zip(before, refused(), strict=True))

        await until(tried_twice_everywhere, PATIENT_S)
        await something_is_said(fleet, fleet.members)
        again = refused()
        await until(lambda: refused() != again, PATIENT_S)
        await spy.flush()
        assert spy.heard == []
    assert await joined(fleet) == {host: set(HOSTS) - {host} for host in HOSTS}


async def test_who_answers_in_place_of_a_server_that_is_down_is_not_taken_for_it(
    fleet: ClusteredFleet, tmp_path: Path
) -> None:
    """By its name, at its address, and with the certificate of another authority."""
    await until_whole(fleet)
    *up, down = fleet.members
    other = certificates.make_authority("fleet routes", time.time())
    pair = certificates.issue(other, "route", [down.host], time.time(), calls=True)
    ours = down.here / server_config.ROUTES_AUTHORITY
    down.kill()
    before = [one.log().count(UNKNOWN) for one in up]
    place = f"{down.host}:{fleet.route_port}"
    try:
        # It calls nobody, but where nobody is.
        nobodys = [f"{SPY}:{free_ports(1)[0]}"]
        tls = shown_by(tmp_path, ours, pair)
        async with Spy(fleet, tmp_path / "spy", nobodys, tls, listen=place) as spy:

            def refused_by_both() -> bool:
                return all(
                    one.log().count(UNKNOWN) >= then + 2
                    for one, then in zip(up, before, strict=True)
                )

            await until(refused_by_both, PATIENT_S)
            await something_is_said(fleet, up)
            await spy.flush()
            assert spy.heard == []
    finally:
        down.start()
    await until_whole(fleet)


async def test_without_that_wall_such_a_server_hears_everything(
    fleet: ClusteredFleet, tmp_path: Path
) -> None:
    """A control: routes as they were once told to be set up."""
    port, route_port, nobodys = free_ports(3)
    accounts = fleet.deployment.embedded_config(tmp_path / "open")
    cluster = (
        f'cluster {{ name: fleet, listen: "{SPY}:{route_port}", '
        f'routes: ["nats://{SPY}:{nobodys}"] }}\n'
    )
    victim = EmbeddedServer(
        tmp_path / "open", port=port, name="open", extra_config=accounts + cluster
    )
    broker = fleet.deployment.broker_credentials
    try:
        await victim.start()
        async with (
            Spy(fleet, tmp_path / "spy", [f"{SPY}:{route_port}"], "") as spy,
            await connect(victim.url, name="x", credentials=broker, timeout_s=PATIENT_S) as line,
        ):
            async with asyncio.timeout(PATIENT_S):
                while SAID not in spy.heard:
                    await line.publish(SAID, b"")
                    await asyncio.sleep(0.05)
        told = EnrollingFleet.broker_verb(fleet, "rotate", "--accounts", "--url", victim.url)
        assert "WARNING: open has routes without TLS" in told.stdout, told
    finally:
        victim.kill()


def test_who_speaks_as_a_server_without_tls_hears_nothing(fleet: ClusteredFleet) -> None:
    said = {
        "server_id": "N" + "A" * 55,
        "name": "spy",
        "cluster": "fleet",
        "auth_required": False,
        "tls_required": False,
        "lnoc": True,
    }
    core = fleet.deployment.identities().accounts["core"]
    for host in HOSTS:
        with socket.create_connection((host, fleet.route_port), PATIENT_S) as line:
            info = json.dumps(said).encode()
            line.sendall(b"INFO " + info + b"\r\nCONNECT " + info + b"\r\n")
            line.sendall(f"RS+ {core} >\r\nPING\r\n".encode())
            heard = b""
            try:
                while chunk := line.recv(65536):
                    heard += chunk
            except ConnectionResetError:
                pass
        # At most a TLS alert: one record of seven bytes (RFC 8446, 6).
        assert len(heard) <= 7, heard


def test_what_a_server_shows_to_clients_opens_no_route(fleet: ClusteredFleet) -> None:
    """Shown by one who does not mind that it is of no authority that was asked for."""
    for member in fleet.members:
        context = ssl.create_default_context(cafile=str(member.here / "routes-ca.pem"))
        context.load_cert_chain(member.here / "server.pem", member.here / "server.key")
        with (
            socket.create_connection((member.host, fleet.route_port), PATIENT_S) as line,
            pytest.raises(ssl.SSLError, match=r"(?i)alert"),
            context.wrap_socket(line, server_hostname=member.host) as secured,
        ):
            secured.recv(1)


def test_each_server_listens_for_clients_and_for_servers_and_for_nobody_else(
    fleet: ClusteredFleet,
) -> None:
    for member in fleet.members:
        open_ports = {
            (one.laddr.ip, one.laddr.port)
            for one in psutil.Process(member.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        }
        assert open_ports == {(member.host, fleet.port), (member.host, fleet.route_port)}


def shown_to_servers(fleet: ClusteredFleet, member: Member) -> str:
    """The serial number of what a server shows to another one."""
    context = ssl.create_default_context(cafile=str(member.here / server_config.ROUTES_AUTHORITY))
    context.load_cert_chain(
        member.here / server_config.ROUTE_CERTIFICATE, member.here / server_config.ROUTE_KEY
    )
    with (
        socket.create_connection((member.host, fleet.route_port), PATIENT_S) as line,
        context.wrap_socket(line, server_hostname=member.host) as secured,
    ):
        return str((secured.getpeercert() or {})["serialNumber"])


async def test_certificates_are_renewed_and_servers_still_find_each_other(
    fleet: ClusteredFleet,
) -> None:
    await until_whole(fleet)
    before = {one.host: shown_to_servers(fleet, one) for one in fleet.members}
    said = fleet.broker_verb("rotate", "--tls", "--url", fleet.members[0].url)
    assert said.returncode == 0, said.stderr
    assert all(f"cluster/{host}/route.pem" in said.stdout for host in HOSTS)
    for member in fleet.members:
        member.deliver()
        member.read_anew()

    def renewed() -> bool:
        return all(shown_to_servers(fleet, one) != before[one.host] for one in fleet.members)

    await asyncio.to_thread(wait_until, renewed, "new certificates")
    fleet.members[2].kill()
    fleet.members[2].start()
    await until_whole(fleet)
    path, key = known_key(fleet, "late")
    for member in fleet.members:
        await (await as_lender(fleet, member, path, key)).close()


def put_in_place(member: Member) -> None:
    """Do as the operator is told to: copy, then have it read."""
    told = "Reloaded server configuration"
    before = member.log().count(told)
    member.deliver()
    member.read_anew()
    wait_until(lambda: member.log().count(told) > before, "it has read its files")


def is_taken_for_a_server(fleet: ClusteredFleet, member: Member, folder: Path) -> bool:
    """Whether who shows this certificate is spoken with, as a server would be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(
        folder / server_config.ROUTE_CERTIFICATE, folder / server_config.ROUTE_KEY
    )
    with socket.create_connection((member.host, fleet.route_port), PATIENT_S) as line:
        try:
            with context.wrap_socket(line) as secured:
                return secured.recv(5) == b"INFO "
        except (ssl.SSLError, ConnectionResetError):
            return False


async def test_routes_get_another_authority_while_the_cluster_works_and_a_stolen_key_opens_none(
    fleet: ClusteredFleet, tmp_path: Path
) -> None:
    await until_whole(fleet)
    first, second, third = fleet.members
    stolen = Path(shutil.copytree(first.here, tmp_path / "stolen"))
    assert is_taken_for_a_server(fleet, second, stolen)
    path, key = known_key(fleet, "later")
    line = await as_lender(fleet, second, path, key)
    states: list[State] = []
    line.watch(states.append)
    steps = ((), ("--retire",), ("--retire", "--yes"))
    for wrong, says in ((steps[1], "waits"), (steps[2], "waits"), (("--tls",), "nothing else")):
        said = fleet.broker_verb("rotate", "--routes", *wrong)
        assert (said.returncode, says in said.stderr) == (1, True), said
    for step in steps:
        said = fleet.broker_verb("rotate", "--routes", *step)
        assert said.returncode == 0, said.stderr
        assert all(host in said.stdout for host in HOSTS)
        if not step:
            for refused in (("rotate", "--routes", *steps[2]), ("rotate", "--tls")):
                assert fleet.broker_verb(*refused).returncode == 1, "it is not its turn"
        for member in fleet.members:
            put_in_place(member)
            # Whoever starts while the others have it not yet finds them all the same.
            if member is first:
                member.kill()
                member.start()
                await until_whole(fleet)
        assert fleet.broker_verb("rotate", "--routes", *step).returncode == (step == steps[2])
    third.kill()
    third.start()
    await until_whole(fleet)
    for member in fleet.members:
        assert not is_taken_for_a_server(fleet, member, stolen)
        assert is_taken_for_a_server(fleet, member, first.here)
    assert states == [], "nobody who was connected has noticed"
    await line.close()
    for member in fleet.members:
        await (await as_lender(fleet, member, path, key)).close()


def test_no_folder_of_a_server_holds_what_is_the_operators(fleet: ClusteredFleet) -> None:
    kept = {
        line
        for name in ("operator", "broker")
        for path in (fleet.deployment.folder / name).iterdir()
        for line in path.read_text().splitlines()
        if len(line) > 40 and path.name != Path(ROUTES_AUTHORITY).name
    }
    assert fleet.deployment.read(ROUTES_AUTHORITY_KEY).splitlines()[1] in kept
    for host in HOSTS:
        for path in (fleet.deployment.folder / contents.CLUSTER_FOLDER / host).iterdir():
            assert not kept & set(path.read_text().splitlines()), path

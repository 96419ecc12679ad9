"""Keys that vouch for others change on a running server: nobody is disturbed, and old ones end."""

import asyncio
import os
import ssl
import time
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest
from broker_parts import BrokerProcess
from cut_off import CrashError, Steps
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats_server import until
from vouching_server import VouchingServer, fleet

from broker.deployment import certificates, claims, contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.revocation import revoke
from broker.deployment.rotation import BEGUN, Running, retire, rotate, still_used
from broker.deployment.rotation_command import ROTATED
from broker.deployment.servers import servers
from broker.deployment.signing import is_of_another_table, signing_keys
from broker.deployment.tokens import Key, decode
from lender.link.connection import ConnectError, Connection, State, StrangerError, connect
from lender.link.credentials import credentials
from lender.link.errors import LinkError
from lender.link.probe import Line, Place
from lender.protocol import subjects
from lender.protocol.permissions import USER_INFO, Role, Verb

__all__ = ["fleet"]  # a fixture
WITHIN_S = 1.0


def running(fleet: VouchingServer) -> Running:
    return lambda: servers(fleet.deployment, fleet.url, fleet.ca)


async def turn(fleet: VouchingServer) -> tuple[str, ...]:
    return await rotate(fleet.deployment, ROTATED, running(fleet), os.urandom, time.time())


async def end(fleet: VouchingServer) -> int:
    async with running(fleet)() as speaking:
        return await retire(fleet.deployment, ROTATED, speaking, time.time())


async def works(line: Connection) -> bool:
    """Whether a lender's connection is let do what a lender does."""
    await line.publish(subjects.offer("U" + "X" * 55))
    await line.nc.flush()
    return bool((await line.request(USER_INFO)).data)


async def test_everybody_stays_connected_and_new_tokens_are_taken_at_once(
    fleet: VouchingServer,
) -> None:
    old = {role: fleet.let_in(role, f"old-{role}") for role in ROTATED if role != "broker"}
    states: list[State] = []
    lines = [await fleet.connect(path) for path in old.values()]
    lines.append(await fleet.broker())
    for line in lines:
        line.watch(states.append)
    assert await turn(fleet) == ROTATED
    for role, path in old.items():
        assert await fleet.lets_in(fleet.let_in(role, f"new-{role}"))
        assert await fleet.lets_in(path), "the old one is good until it is retired"
    await (await fleet.broker()).close()
    assert await works(lines[0])
    assert states == []
    assert not (fleet.deployment.folder / BEGUN).exists()
    assert {
        len(keys) for role, keys in signing_keys(fleet.deployment).items() if role in ROTATED
    } == {2}
    for line in lines:
        await line.close()
    # A server that starts later knows all of it, too.
    fleet.kill()
    await fleet.start()
    assert await fleet.lets_in(old["lender"])
    assert await fleet.lets_in(fleet.folder / "new-lender.creds")


async def test_what_a_retired_key_has_signed_is_refused_within_a_second(
    fleet: VouchingServer,
) -> None:
    old = fleet.let_in("lender", "attic")
    line = await fleet.connect(old)
    await turn(fleet)
    other = await fleet.connect(fleet.let_in("lender", "desk"))
    undisturbed: list[State] = []
    other.watch(undisturbed.append)
    async with running(fleet)() as speaking:
        (user,) = await still_used(fleet.deployment, ("lender",), speaking)
    assert (user.role, user.user.called) == ("lender", "attic")

    said = fleet.rotate("--retire", "--role", "lender")
    assert said.returncode == 1
    assert f"attic {user.user.authorized_user}" in said.stderr
    assert "desk" not in said.stderr
    assert line.connected

    cut: list[float] = []
    line.watch(lambda _: cut.append(time.monotonic()))
    assert await end(fleet) == len(ROTATED)
    told = time.monotonic()
    await until(lambda: cut, WITHIN_S)
    assert cut[0] < told + WITHIN_S
    assert not await fleet.lets_in(old)
    assert await works(other)
    assert undisturbed == []
    await (await fleet.broker()).close()
    assert await end(fleet) == 0, "there is nothing left to retire"
    fleet.kill()
    await fleet.start()
    assert not await fleet.lets_in(old)
    await line.close()
    await other.close()


async def test_the_operators_commands_say_what_they_did(fleet: VouchingServer) -> None:
    said = fleet.rotate("--role", "lender", "submitter")
    assert (said.returncode, said.stderr) == (0, "")
    assert "new keys vouch for: lender, submitter" in said.stdout
    seeds = [fleet.deployment.key(contents.signing_key_file(r)).seed.decode() for r in ROTATED]
    assert not any(seed in said.stdout for seed in seeds)
    said = fleet.rotate("--retire")
    assert (said.returncode, "nobody any more: 2" in said.stdout) == (0, True), said
    assert "no key was changed" in fleet.rotate("--accounts").stdout
    for wrong in (("--yes",), ("--host", "x"), ("--role", "stranger"), ("--tls", "--retire")):
        said = fleet.rotate(*wrong)
        assert said.returncode in (1, 2)
        assert "Traceback" not in said.stderr


async def test_a_broker_that_serves_takes_up_its_new_token(fleet: VouchingServer) -> None:
    deployment = ("--deployment", str(fleet.deployment.folder))
    broker = BrokerProcess(fleet.folder / "broker", fleet.url, *deployment)
    try:
        await broker.start()
        await turn(fleet)
        said = fleet.rotate("--retire")
        assert (said.returncode, "broker broker U" in said.stderr) == (1, True), said
        said = fleet.rotate("--retire", "--yes")
        assert (said.returncode, "broker broker U" in said.stdout) == (0, True), said
        async with running(fleet)() as speaking:
            core = fleet.deployment.identities().accounts["core"]
            keys = signing_keys(fleet.deployment)["broker"]
            async with asyncio.timeout(20):
                while {one.issuer_key for one in await speaking.users(core)} != set(keys):
                    assert broker.alive, broker.log() + fleet.log()
    finally:
        broker.kill()


async def test_a_rotation_that_is_cut_off_anywhere_is_completed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = 0, False
    server = VouchingServer(tmp_path)
    await server.start()
    try:
        old = server.let_in("lender", "old")
        line = await server.connect(old)
        states: list[State] = []
        line.watch(states.append)
        rounds = 0
        while not done:
            before = signing_keys(server.deployment)
            with monkeypatch.context() as patched:
                Steps(patched, step)
                try:
                    await turn(server)
                    done = True
                except CrashError:
                    pass
            assert await server.lets_in(server.let_in("lender", "between")), f"step {step}"
            assert await server.lets_in(old), f"step {step}"
            if not done:
                await turn(server)
            rounds += 1
            after = signing_keys(server.deployment)
            for role in ROTATED:
                grown = len(after[role]) - len(before[role])
                assert grown == 1, f"step {step}: {role}"
                public = server.deployment.key(contents.signing_key_file(role)).public
                assert public == after[role][-1]
            assert not (server.deployment.folder / BEGUN).exists()
            assert await server.lets_in(server.let_in("lender", "new"))
            step += 1
        assert rounds > 10
        assert states == []
        await line.close()
    finally:
        server.kill()


async def test_a_retirement_that_is_cut_off_anywhere_is_completed_by_another(
    fleet: VouchingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = 0, False
    while not done:
        old = fleet.let_in("lender", "old")
        await turn(fleet)
        new = fleet.let_in("lender", "new")
        with monkeypatch.context() as patched:
            Steps(patched, step)
            try:
                await end(fleet)
                done = True
            except CrashError:
                pass
        assert await fleet.lets_in(new), f"step {step}"
        await end(fleet)
        assert not await fleet.lets_in(old), f"step {step}"
        assert await fleet.lets_in(new), f"step {step}"
        step += 1
    assert step > 5


async def test_a_server_that_starts_between_write_and_word_knows_both_keys(
    fleet: VouchingServer,
) -> None:
    old = fleet.let_in("lender", "old")
    fleet.kill()
    with pytest.raises(LinkError, match="no NATS server"):
        await turn(fleet)
    await fleet.start()
    assert await fleet.lets_in(old)
    with pytest.raises(DeploymentError, match="cut off"):
        await end(fleet)
    assert await turn(fleet) == ROTATED
    assert await fleet.lets_in(old)
    assert await fleet.lets_in(fleet.let_in("lender", "new"))
    (fleet.deployment.folder / BEGUN).write_text('{"lender": 7}')
    with pytest.raises(DeploymentError, match="damaged"):
        await turn(fleet)


async def test_only_one_changes_a_deployment_at_a_time(fleet: VouchingServer) -> None:
    key = Key.make("user", bytes(32)).public
    with fleet.deployment.locked():
        with pytest.raises(DeploymentError, match="another command"):
            await turn(fleet)
        with pytest.raises(DeploymentError, match="another command"):
            await revoke(fleet.deployment, fleet.url, fleet.ca, key, time.time())
    await turn(fleet)


async def test_a_revocation_outlives_a_rotation(fleet: VouchingServer) -> None:
    path = fleet.let_in("lender", "attic")
    public = decode(path.read_text().split("-----\n")[1].split("\n")[0])["sub"]
    await revoke(fleet.deployment, fleet.url, fleet.ca, public, time.time())
    await turn(fleet)
    assert not await fleet.lets_in(path)


def older_table(patched: pytest.MonkeyPatch) -> None:
    """One that let nobody ask what he may."""
    usual = claims.permissions.templates

    def older(role: Role, verb: Verb) -> tuple[str, ...]:
        return tuple(one for one in usual(role, verb) if one != USER_INFO)

    patched.setattr(claims.permissions, "templates", older)


async def test_a_later_table_reaches_who_is_let_in_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        older_table(patched)
        server = VouchingServer(tmp_path)
    await server.start()
    try:
        path = server.let_in("lender", "desk")
        async with await server.connect(path) as line:
            with pytest.raises(LinkError):
                await line.request(USER_INFO, timeout_s=WITHIN_S)
            assert is_of_another_table(server.deployment)
            before = signing_keys(server.deployment)
            said = server.rotate("--accounts")
            assert said.returncode == 0, said.stderr
            assert signing_keys(server.deployment) == before
            assert not is_of_another_table(server.deployment)
            # The server lets go of whom the scope has changed for; he comes back by himself.
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await line.request(USER_INFO, timeout_s=WITHIN_S)).data
                        break
                    except LinkError:
                        await asyncio.sleep(0.05)
    finally:
        server.kill()


async def test_a_later_bound_on_strangers_reaches_a_server_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(claims, "STRANGERS_CONNECTIONS_MAX", -1)
        server = VouchingServer(tmp_path)
    await server.start()
    try:
        assert is_of_another_table(server.deployment)
        monkeypatch.setattr(claims, "STRANGERS_CONNECTIONS_MAX", 2)
        await rotate(server.deployment, (), running(server), os.urandom, time.time())
        assert not is_of_another_table(server.deployment)
        lines = [await as_stranger(server) for _ in range(2)]
        with pytest.raises(NatsError, match="maximum account"):
            await as_stranger(server)
        for line in lines:
            await line.close()
    finally:
        server.kill()


async def as_stranger(server: VouchingServer) -> Client:
    async def ignore(_: Exception) -> None:
        """The last one is refused."""

    context = ssl.create_default_context(cafile=str(server.ca))
    return await nats_py.connect(
        server.url, tls=context, max_reconnect_attempts=0, allow_reconnect=False, error_cb=ignore
    )


async def test_a_broker_with_the_operators_key_brings_its_server_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Deployment(tmp_path / "broker" / "deployment")
    none = Certificates("", "", "", "")
    with monkeypatch.context() as patched:
        older_table(patched)
        made = contents.new_deployment(deployment.folder, "x", 4222, none, os.urandom, time.time())
        deployment.write(made)
    key = Key.make("user", os.urandom(32))
    path = tmp_path / "desk.creds"
    path.touch(mode=0o600)
    token = deployment.vouch("lender", key.public, "desk", (), time.time())
    path.write_text(credentials(token, key.seed))
    # Nor did that version know of strangers.
    for account in ("strangers", contents.SENTINEL):
        deployment.remove(contents.token_file(account))
    older = deployment.read(contents.ACCOUNTS_FILE).splitlines(keepends=True)
    kept = [line for line in older if not line.startswith("default_sentinel")]
    deployment.replace({contents.ACCOUNTS_FILE: "".join(kept)})
    away = (deployment.folder / contents.OPERATOR_KEY).rename(tmp_path / "operator.nk")
    for is_here, asks in ((False, False), (True, True)):
        broker = BrokerProcess(tmp_path / "broker", "", "--embedded", "--port", "0")
        try:
            await broker.start()
            line = await as_lender(broker.url, path, key)
            async with line:
                with pytest.raises(StrangerError if asks else ConnectError):
                    await connect(broker.url, name="stranger", timeout_s=WITHIN_S)
                if asks:
                    assert (await line.request(USER_INFO)).data
                else:
                    assert "rotate --accounts" in broker.log()
                    with pytest.raises(LinkError):
                        await line.request(USER_INFO, timeout_s=WITHIN_S)
        finally:
            broker.kill()
        if not is_here:
            away.rename(deployment.folder / contents.OPERATOR_KEY)


async def as_lender(url: str, path: Path, key: Key) -> Connection:
    return await connect(
        url, name="desk", credentials=path, inbox_prefix=f"_INBOX_{key.public}", timeout_s=10
    )


def shown_certificate(fleet: VouchingServer) -> dict[str, Any]:
    with Line(Place("127.0.0.1", fleet.port), 10) as line:
        line.open(line.resolve())
        line.greet()
        return line.secure(ssl.create_default_context(cafile=str(fleet.ca))).certificate


async def test_a_certificate_is_renewed_while_everybody_stays_connected(
    tmp_path: Path,
) -> None:
    server = VouchingServer(tmp_path, certified_at=time.time() - 3640 * 86_400)
    await server.start()
    try:
        line = await server.connect(server.let_in("lender", "desk"))
        states: list[State] = []
        line.watch(states.append)
        before = shown_certificate(server)
        key = server.deployment.read(contents.CERTIFICATE_KEY)
        said = server.rotate("--tls", "--host", "nats.lab")
        assert (said.returncode, said.stderr) == (0, "")
        assert "trial-1" in said.stdout
        after = shown_certificate(server)
        assert before["serialNumber"] != after["serialNumber"]
        ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in (before, after)]
        assert ends[1] - ends[0] > 3600 * 86_400
        names = {value for _, value in after["subjectAltName"]}
        assert names == {"127.0.0.1", "localhost", "nats.lab"}
        assert server.deployment.read(contents.CERTIFICATE_KEY) == key
        assert await works(line)
        assert states == []
        await line.close()
        said = server.rotate("--tls", "--host", "bücher.example")
        assert (said.returncode, "can't be renewed" in said.stderr) == (1, True)
        server.deployment.remove(contents.AUTHORITY_KEY)
        said = server.rotate("--tls")
        assert (said.returncode, "not made here" in said.stderr) == (1, True)
    finally:
        server.kill()


def test_a_certificate_of_another_kind_of_key_is_left_alone() -> None:
    made = certificates.make("x", ["127.0.0.1"], time.time())
    with pytest.raises(ValueError, match=r"PEM|certificate"):
        certificates.renew(made._replace(server="x"), (), time.time())

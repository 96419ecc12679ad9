"""What strangers try: floods, garbage, others' keys, answers and tokens."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from broker_command import broker_command
from broker_parts import BrokerProcess
from enrolment_world import signer
from nats_server import until

from broker.core.enrolment import waiting
from broker.core.enrolment.messages import (
    Admission,
    JoinToken,
    OperatorAnswer,
    WaitingRequest,
)
from broker.deployment.claims import STRANGERS_CONNECTIONS_MAX
from broker.deployment.folder import Deployment
from lender.link.api import JetStream
from lender.link.connection import ConnectError, Connection, connect
from lender.link.credentials import credentials
from lender.link.embedded import EmbeddedServer
from lender.link.enrolling import Applicant, RefusedError, Wanted, ask, connect_as_stranger
from lender.link.errors import LinkError
from lender.protocol import streams, subjects
from lender.protocol.bounds import ENROL_BYTES_MAX
from lender.protocol.codec import decode, encode
from lender.protocol.enrolment import EnrolAnswer, EnrolRequest, digest_of, signed_part
from lender.protocol.permissions import STRANGERS_INBOX
from lender.protocol.signature import SIGNATURE_HEADER, Signer, seed_from_entropy

ELSEWHERE = "127.0.0.3"
"""Another machine's address, as it were."""


class Fleet:
    """A deployment on a server, and a broker that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = folder / "broker"
        made = broker_command("init", "--state", str(state))
        assert made.returncode == 0, made.stderr
        self.deployment = Deployment(state / "deployment")
        store = folder / "nats"
        self.server = EmbeddedServer(store, extra_config=self.deployment.embedded_config(store))

    async def start(self) -> None:
        await self.server.start()
        self.broker = BrokerProcess(self.folder / "broker", self.server.url)
        # The server has no TLS here: it is not asked for.
        (self.deployment.folder / "ca.pem").unlink()
        await self.broker.start()

    async def stranger(self) -> Connection:
        return await connect_as_stranger(self.server.url, None, 10)

    async def requests(self) -> tuple[WaitingRequest, ...]:
        async with await connect(
            self.server.url,
            name="operator",
            credentials=self.deployment.broker_credentials,
            timeout_s=10,
        ) as operator:
            msg = await operator.request(subjects.ENROLMENT_REQUESTS, b"")
        return decode(OperatorAnswer, msg.data).requests

    def strangers(self, *arguments: str) -> str:
        said = self.broker.run("strangers", "--url", self.server.url, *arguments)
        assert said.returncode == 0, said.stderr
        return said.stdout

    def approve(self, code: str) -> None:
        said = self.broker.run("approve", code, "--yes", "--url", self.server.url)
        assert said.returncode == 0, said.stderr


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    one = Fleet(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        one.broker.kill()
        one.server.kill()


def applicant(number: int, name: str = "desk") -> Applicant:
    return Applicant(signer(number), Wanted("lender", name), os.urandom)


async def paired(fleet: Fleet, line: Connection, one: Applicant) -> EnrolAnswer:
    """Ask until we are let in, and approve it as the operator."""
    asking = asyncio.create_task(ask(line, one, lambda: None))
    try:
        async with asyncio.timeout(60):
            while True:
                codes = [waits.code for waits in await fleet.requests()]
                if one.code is not None and one.code in codes:
                    break
                await asyncio.sleep(0.1)
            await asyncio.to_thread(fleet.approve, one.code)
            return await asking
    finally:
        asking.cancel()


async def test_a_flood_holds_nobody_up_and_stays_small(fleet: Fleet) -> None:
    sent = 0
    assert fleet.broker.process is not None
    broker = psutil.Process(fleet.broker.process.pid)

    def cpu_s() -> float:
        used = broker.cpu_times()
        return float(used.user + used.system)

    async def flood(line: Connection) -> None:
        nonlocal sent
        reply = f"{line.inbox.subject}.0"
        made = [
            Applicant(
                Signer(seed_from_entropy(os.urandom(32))), Wanted("lender", "x"), os.urandom
            ).request()
            for _ in range(100)
        ]
        while True:
            for payload, headers in made:
                await line.publish(subjects.ENROL, payload, headers, reply)
                await line.publish(subjects.ENROL, payload[1:], headers, reply)
                sent += 2
            await asyncio.sleep(0.02)

    lines = [await fleet.stranger() for _ in range(3)]
    floods = [asyncio.create_task(flood(line)) for line in lines]
    try:
        await until(lambda: sent > 10_000, 30)
        began, began_cpu_s = time.monotonic(), cpu_s()
        async with await fleet.stranger() as line:
            answer = await paired(fleet, line, applicant(1))
        assert answer.token is not None
        took_s = time.monotonic() - began
        assert cpu_s() - began_cpu_s < 0.2 * took_s, "most of the broker's time is for others"
        assert len(await fleet.requests()) <= len(lines) * waiting.OF_LINE_MAX + 1
        assert fleet.broker.alive
    finally:
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        for line in lines:
            await line.close()


async def test_what_a_stranger_says_of_his_line_is_not_believed(fleet: Fleet) -> None:
    """The server's word on it bounds how many of his wait."""
    async with await fleet.stranger() as line:
        for number in range(1, 6):
            one = applicant(number)
            for _ in range(2):
                payload, headers = one.request()
                made_up = f'{{"acc":"X","host":"10.9.9.9","id":{number},"server":"x"}}'
                msg = await line.request(
                    subjects.ENROL, payload, {**headers, "Nats-Request-Info": made_up}
                )
                one.take(msg.data)
        found = await fleet.requests()
        assert len(found) == waiting.OF_LINE_MAX
        assert {one.host for one in found} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "hides",
    ["X: yy", "X yy", ' Nats-Request-Info: {"host":"10.9.9.9","id":NUMBER,"server":"x"}\r\nX yy'],
    ids=["in a value", "in a name", "behind one of his own"],
)
async def test_headers_that_hide_the_servers_word_let_nobody_wait(fleet: Fleet, hides: str) -> None:
    """The server puts it at the end, without a look at whether a line ends there."""
    server = urlsplit(fleet.server.url)
    reader, writer = await asyncio.open_connection(server.hostname, server.port)
    try:
        writer.write(b'CONNECT {"headers":true,"verbose":false}\r\n')
        applicants = {f"{n}": applicant(n + 10) for n in range(2 * waiting.OF_LINE_MAX)}
        inbox = "_INBOX_stranger.hides"
        writer.write(f"SUB {inbox}.* 1\r\n".encode())
        for _ in range(2):
            for number, one in applicants.items():
                payload, headers = one.request()
                said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                block = f"NATS/1.0\r\n{said}{hides.replace('NUMBER', number)}".encode()
                sizes = f"{len(block)} {len(block) + len(payload)}"
                writer.write(f"HPUB {subjects.ENROL} {inbox}.{number} {sizes}\r\n".encode())
                writer.write(block + payload + b"\r\n")
            async for number, answer in _answers(reader):
                applicants[number].take(answer)
        assert await fleet.requests() == ()
        assert fleet.broker.alive
    finally:
        writer.close()
        await writer.wait_closed()


async def test_strangers_take_the_lines_of_strangers_alone_and_are_held_to_a_few(
    fleet: Fleet,
) -> None:
    server = urlsplit(fleet.server.url)
    lines: list[asyncio.StreamWriter] = []
    said = b"PONG"
    try:
        while said.startswith(b"PONG") and len(lines) <= STRANGERS_CONNECTIONS_MAX:
            reader, writer = await asyncio.open_connection(
                server.hostname, server.port, local_addr=(ELSEWHERE, 0)
            )
            lines.append(writer)
            await reader.readline()
            writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            said = await asyncio.wait_for(reader.readline(), 10)
        assert b"maximum account active connections" in said
        assert len(lines) == STRANGERS_CONNECTIONS_MAX + 1
        assert await fleet.requests() == ()
        with pytest.raises(ConnectError, match="maximum account active connections"):
            await connect_as_stranger(fleet.server.url, None, 1.0)

        listed = await asyncio.to_thread(fleet.strangers)
        assert f"{STRANGERS_CONNECTIONS_MAX}  {ELSEWHERE}" in listed
        held = await asyncio.to_thread(fleet.strangers, "--at-most", "4", "--for", "1s")
        assert f"{STRANGERS_CONNECTIONS_MAX - 4}  {ELSEWHERE}" in held
        async with await fleet.stranger() as line:
            assert (await paired(fleet, line, applicant(1))).token is not None
            listed = await asyncio.to_thread(fleet.strangers)
        assert f" 4  {ELSEWHERE}" in listed
        assert " 1  127.0.0.1" in listed
    finally:
        for writer in lines:
            writer.close()


async def _answers(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    """What comes within a second, if anything does: the last token of its subject, the payload."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 1
    while True:
        try:
            async with asyncio.timeout_at(end):
                line = await reader.readline()
                if not line.startswith((b"MSG", b"HMSG")):
                    continue
                words = line.decode().split()
                # MSG subject sid bytes; HMSG subject sid bytes-of-headers bytes
                before = int(words[-2]) if words[0] == "HMSG" else 0
                payload = (await reader.readexactly(int(words[-1]) + 2))[before:-2]
        except TimeoutError:
            return
        yield words[1].rpartition(".")[2], payload


async def test_garbage_is_answered_by_nothing_and_too_much_of_it_by_the_server(
    fleet: Fleet,
) -> None:
    async with await fleet.stranger() as line:
        payload, headers = applicant(1).request()
        signature = headers[SIGNATURE_HEADER]
        for said, signed in (
            (b"", signature),
            (os.urandom(500), signature),
            (payload, "x" * 86),
            (payload[:-1], signature),
        ):
            with pytest.raises(LinkError):
                await line.request(subjects.ENROL, said, {SIGNATURE_HEADER: signed}, 0.5)
        await line.publish(subjects.ENROL, bytes(ENROL_BYTES_MAX + 1))
        await until(lambda: not line.connected, 10)
    async with await fleet.stranger() as line:
        assert (await paired(fleet, line, applicant(2))).token is not None
    assert "Traceback" not in fleet.broker.log()


async def test_nobody_enrols_anothers_key_nor_sends_its_request_away(fleet: Fleet) -> None:
    desk, mallory = applicant(1), signer(2)
    async with await fleet.stranger() as line, await fleet.stranger() as his:
        asking = asyncio.create_task(ask(line, desk, lambda: None))
        try:
            await until(lambda: desk.code is not None, 10)
            request = decode(EnrolRequest, desk.request()[0])
            payload = encode(request.model_copy(update={"name": "mallory"}))
            forged = {SIGNATURE_HEADER: mallory.sign(signed_part(payload))}
            with pytest.raises(LinkError):
                await his.request(subjects.ENROL, payload, forged, 0.5)
            (waits,) = await fleet.requests()
            assert (waits.name, waits.code) == ("desk", desk.code)
        finally:
            asking.cancel()


async def test_an_answer_that_was_overheard_lets_nobody_in(fleet: Fleet) -> None:
    heard: list[bytes] = []

    async def hear(msg: object) -> None:
        heard.append(getattr(msg, "data", b""))

    async with await fleet.stranger() as line, await fleet.stranger() as his:
        await his.nc.subscribe(f"{STRANGERS_INBOX}.*.*", cb=hear)
        await his.nc.flush()
        answer = await paired(fleet, line, applicant(1))
        assert answer.token is not None
        await until(lambda: any(answer.token.encode() in one for one in heard), 10)
        # Nor does he say anything there himself.
        await his.publish(f"{line.inbox.subject}.1", b"x")
        await his.nc.flush()
        assert "ermissions violation for publish" in str(his.last_error).lower()
    path = fleet.folder / "stolen.creds"
    for number, let_in in ((2, False), (1, True)):
        path.write_text(credentials(answer.token, seed_from_entropy(bytes([number]) * 32)))
        path.chmod(0o600)
        key = signer(number).public_key
        try:
            line = await connect(
                fleet.server.url,
                name="x",
                credentials=path,
                inbox_prefix=f"_INBOX_{key}",
                timeout_s=2,
            )
        except ConnectError:
            assert not let_in
        else:
            await line.close()
            assert let_in


async def test_a_used_token_is_used_for_a_broker_that_takes_over_too(fleet: Fleet) -> None:
    said = fleet.broker.run("token", "--url", fleet.server.url)
    assert said.returncode == 0, said.stderr
    token = said.stdout.strip()
    deployment = ("--deployment", str(fleet.deployment.folder))
    second = BrokerProcess(fleet.folder / "second", fleet.server.url, *deployment)
    second.spawn()
    try:
        async with await fleet.stranger() as line:
            desk = Applicant(signer(1), Wanted("lender", "desk", (), token), os.urandom)
            assert (await ask(line, desk, lambda: None)).token is not None
            await until(lambda: "standing by: broker" in second.log(), 20)
            fleet.broker.kill()
            await until(second.ready_file.exists, 20)
            attic = Applicant(signer(2), Wanted("lender", "attic", (), token), os.urandom)
            with pytest.raises(RefusedError, match="join token is not good"):
                async with asyncio.timeout(30):
                    await ask(line, attic, lambda: None)
            async with asyncio.timeout(30):
                assert (await ask(line, desk, lambda: None)).token is not None
    finally:
        second.kill()


async def test_a_token_that_another_broker_took_meanwhile_is_used(fleet: Fleet) -> None:
    """For a while two may think that they lead: the server takes the word of one."""
    said = fleet.broker.run("token", "--url", fleet.server.url)
    token = said.stdout.strip()
    subject = subjects.join_token(digest_of(token))
    async with await connect(
        fleet.server.url,
        name="another broker",
        credentials=fleet.deployment.broker_credentials,
        timeout_s=10,
    ) as another:
        jetstream = JetStream(another)
        (stored,) = (await jetstream.get_page(streams.ENROLMENT, 1, 9)).messages
        assert stored.subject == subject
        by_another = Admission(role="lender", key=signer(9).public_key, name="x", at=1)
        used = decode(JoinToken, stored.payload).model_copy(update={"used": by_another})
        await another.request(subject, encode(used))
        async with await fleet.stranger() as line:
            desk = Applicant(signer(1), Wanted("lender", "desk", (), token), os.urandom)
            with pytest.raises(RefusedError, match="join token is not good"):
                async with asyncio.timeout(30):
                    await ask(line, desk, lambda: None)
        (last,) = (await jetstream.get_page(streams.ENROLMENT, 1, 9)).messages
        assert decode(JoinToken, last.payload).used == by_another

"""A submitter with nothing of ours: nats-py, nkeys, and JSON or MessagePack, by docs/protocol.md.

Nothing here imports lender or broker; what `fleet` starts are the real programs.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgpack
import nats
import nkeys
import pytest
from fleet import StandingFleet
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg
from nats.js.errors import APIError

TIME_S = 60
SUBJECT_TAKEN = 10077
PIECE = 524_288
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


class Fleet(Protocol):
    """A NATS server, a broker and lenders whose owners grant `command` to the submitter."""

    url: str
    submitter_seed: bytes


# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    with StandingFleet("desk", "attic") as fleet:
        yield fleet


@pytest.fixture
def fleet(standing: StandingFleet) -> Fleet:
    return standing.in_order()


@dataclass(frozen=True)
class Encoding:
    content_type: str
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]
    bytes_of: Callable[[Any], bytes]


JSON = Encoding(
    "application/json",
    lambda fields: json.dumps(fields).encode(),
    json.loads,
    base64.b64decode,
)
MSGPACK = Encoding("application/msgpack", msgpack.packb, msgpack.unpackb, bytes)
both = pytest.mark.parametrize("encoding", [JSON, MSGPACK], ids=["json", "msgpack"])


class Submitter:
    """The flow of docs/protocol.md and no more."""

    def __init__(self, nc: Nats, seed: bytes, encoding: Encoding) -> None:
        self._nc = nc
        self._pair = nkeys.from_seed(bytearray(seed))
        self._encoding = encoding
        self.key: str = self._pair.public_key.decode()

    def spec(self, argv: list[str], **more: object) -> dict[str, Any]:
        now = time.time()
        return {
            "v": 1,
            "id": secrets.token_hex(13),
            "submitter": self.key,
            "workload": "command",
            "runtime": "process",
            "argv": argv,
            "created_at": now,
            "not_after": now + 3600,
            **more,
        }

    async def publish(
        self, job: str, payload: bytes, *, signature: str | None = None, subject: str | None = None
    ) -> None:
        signed = base64.urlsafe_b64encode(self._pair.sign(payload)).rstrip(b"=").decode()
        headers = {
            "Content-Type": self._encoding.content_type,
            "Lender-Signature": signed if signature is None else signature,
        }
        await self._nc.jetstream().publish(
            subject or f"submit.{self.key}.{job}", payload, headers=headers
        )

    async def submit(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Submit and wait; returns the terminal record."""
        await self.publish(spec["id"], self._encoding.dump(spec))
        return await self.terminal(spec["id"])

    async def terminal(self, job: str) -> dict[str, Any]:
        events = await self._nc.subscribe(f"event.{self.key}.{job}")
        async with asyncio.timeout(TIME_S):
            while (found := await self.get("RESULTS", f"res.{self.key}.{job}")) is None:
                try:
                    await events.next_msg(timeout=1)
                except nats.errors.TimeoutError:
                    continue
        await events.unsubscribe()
        assert (found.headers or {})["Content-Type"] == self._encoding.content_type
        record: dict[str, Any] = self._encoding.load(found.data)
        return record

    async def get(self, stream: str, subject: str) -> Msg | None:
        answer = await self._nc.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", timeout=5)
        return None if (answer.headers or {}).get("Status") == "404" else answer

    async def store(self, content: bytes) -> dict[str, Any]:
        digest, week = hashlib.sha256(content).hexdigest(), int(time.time()) // 604_800
        for number, start in enumerate(range(0, len(content), PIECE)):
            await self._nc.jetstream().publish(
                f"blob.{self.key}.{self.key}.{digest}.{week}-{number}",
                content[start : start + PIECE],
            )
        return {"sha256": digest, "size_bytes": len(content), "week": week}

    async def fetch(self, ref: dict[str, Any]) -> bytes:
        content = b""
        for number in range(-(-ref["size_bytes"] // PIECE)):
            place = f"out.{self.key}.{ref['by']}.{ref['sha256']}.{ref['week']}-{number}"
            piece = await self.get(f"BLOBS_{self.key}_OUT", place)
            assert piece is not None
            content += piece.data
        assert hashlib.sha256(content).hexdigest() == ref["sha256"]
        return content


@asynccontextmanager
async def submitter(fleet: Fleet, encoding: Encoding) -> AsyncIterator[Submitter]:
    public_key = nkeys.from_seed(bytearray(fleet.submitter_seed)).public_key.decode()
    nc = await nats.connect(
        fleet.url, nkeys_seed_str=fleet.submitter_seed.decode(), inbox_prefix=f"_INBOX_{public_key}"
    )
    try:
        yield Submitter(nc, fleet.submitter_seed, encoding)
    finally:
        await nc.close()


@both
async def test_a_command_over_a_file_brings_value_and_output(
    fleet: Fleet, encoding: Encoding
) -> None:
    content, kept = secrets.token_bytes(2 * PIECE + 100_000), PIECE + 70_000
    async with submitter(fleet, encoding) as me:
        spec = me.spec(
            ["sh", "-c", f"sha256sum data.bin; head -c {kept} data.bin >part.bin; echo done >&2"],
            inputs=[{"name": "data.bin", **await me.store(content)}],
            outputs=["part.bin"],
        )
        terminal = await me.submit(spec)
        assert terminal["state"] == "succeeded", terminal
        result = terminal["result"]
        value = encoding.bytes_of(result["value"]).decode()
        assert value.split() == [hashlib.sha256(content).hexdigest(), "data.bin"]
        assert encoding.bytes_of(result["stderr_tail"]) == b"done\n"
        (output,) = result["outputs"]
        assert output["name"] == "part.bin"
        assert await me.fetch(output) == content[:kept]


@both
async def test_an_array_brings_each_result_once(fleet: Fleet, encoding: Encoding) -> None:
    count = 40
    async with submitter(fleet, encoding) as me:
        spec = me.spec(["echo", "task {task}"], array={"count": count})
        terminal = await me.submit(spec)
        assert (terminal["state"], terminal["tasks_succeeded"]) == ("succeeded", count)
        values: dict[int, str] = {}
        for task in range(count):
            # The smallest task without a result names the next chunk.
            if task in values:
                continue
            stored = await me.get("RESULTS", f"res.{me.key}.{spec['id']}.{task}")
            assert stored is not None
            for result in encoding.load(stored.data)["results"]:
                assert result["task"] not in values
                values[result["task"]] = encoding.bytes_of(result["value"]).decode()
    assert values == {task: f"task {task}\n" for task in range(count)}


@both
async def test_what_a_job_left_is_anothers_input_without_being_sent_again(
    fleet: Fleet, encoding: Encoding
) -> None:
    async with submitter(fleet, encoding) as me:
        terminal = await me.submit(me.spec(["sh", "-c", "echo 41 >n"], outputs=["n"]))
        (output,) = terminal["result"]["outputs"]
        terminal = await me.submit(me.spec(["cat", "n"], inputs=[output]))
        assert encoding.bytes_of(terminal["result"]["value"]) == b"41\n"


@both
async def test_a_failing_command_reports_its_exit_code(fleet: Fleet, encoding: Encoding) -> None:
    async with submitter(fleet, encoding) as me:
        terminal = await me.submit(me.spec(["sh", "-c", "exit 7"]))
    assert (terminal["state"], terminal["result"]["exit_code"]) == ("failed", 7)


@both
async def test_a_value_too_large_to_travel_inline_is_a_blob(
    fleet: Fleet, encoding: Encoding
) -> None:
    async with submitter(fleet, encoding) as me:
        terminal = await me.submit(me.spec(["sh", "-c", "head -c 200000 /dev/zero"]))
        assert terminal["state"] == "succeeded", terminal
        assert await me.fetch(terminal["result"]["value_blob"]) == bytes(200_000)


@both
async def test_what_is_wrong_is_named(fleet: Fleet, encoding: Encoding) -> None:
    async with submitter(fleet, encoding) as me:
        for change, field in (
            ({"colour": "blue"}, "colour"),
            ({"argv": 7}, "argv"),
            ({"array": {"count": 0}}, "array.count"),
            ({"array": {"count": 10_000_001}}, "array.count"),
            ({"outputs": ["../up"]}, "outputs.0"),
            ({"submitter": "U" + "A" * 55}, "submitter"),
        ):
            spec = me.spec(["true"]) | change
            terminal = await me.submit(spec)
            assert (terminal["state"], terminal["field"]) == ("rejected", field)
            assert terminal["reason"]


@both
async def test_a_signature_must_be_over_exactly_these_bytes(
    fleet: Fleet, encoding: Encoding
) -> None:
    async with submitter(fleet, encoding) as me:
        for signature in ("", "AAAA", "A" * 86):
            spec = me.spec(["true"])
            await me.publish(spec["id"], encoding.dump(spec), signature=signature)
            terminal = await me.terminal(spec["id"])
            assert (terminal["state"], terminal["field"]) == ("rejected", "signature")


async def test_bytes_that_are_no_message_are_rejected(fleet: Fleet) -> None:
    for encoding in (JSON, MSGPACK):
        async with submitter(fleet, encoding) as me:
            job = secrets.token_hex(13)
            await me.publish(job, b"\xc1{not a message")
            assert (await me.terminal(job))["state"] == "rejected"


@both
async def test_a_second_submission_is_refused_by_the_server(
    fleet: Fleet, encoding: Encoding
) -> None:
    async with submitter(fleet, encoding) as me:
        spec = me.spec(["echo", "first"])
        payload = encoding.dump(spec)
        terminal = await me.submit(spec)
        for again in (payload, encoding.dump(spec | {"argv": ["echo", "second"]})):
            with pytest.raises(APIError) as refused:
                await me.publish(spec["id"], again)
            assert refused.value.err_code == SUBJECT_TAKEN
        stored = await me.get("JOBS", f"submit.{me.key}.{spec['id']}")
        assert stored is not None
        assert stored.data == payload
        assert await me.terminal(spec["id"]) == terminal


@both
async def test_a_job_that_nobody_lends_for_waits_and_can_be_cancelled(
    fleet: Fleet, encoding: Encoding
) -> None:
    async with submitter(fleet, encoding) as me:
        spec = me.spec(["true"], workload="nobody-lends-this")
        await me.publish(spec["id"], encoding.dump(spec))
        question = encoding.dump({"v": 1, "job": spec["id"]})
        headers = {"Content-Type": encoding.content_type}
        status: dict[str, Any] = {}
        async with asyncio.timeout(TIME_S):
            while not status.get("why"):
                answer = await me._nc.request(f"query.{me.key}", question, headers=headers)
                status = next(iter(encoding.load(answer.data).get("jobs", ())), {})
        assert status["state"] == "queued"
        malformed = encoding.dump({"v": 1, "job": "?"})
        answer = await me._nc.request(f"query.{me.key}", malformed, headers=headers)
        error = encoding.load(answer.data)["error"]
        assert answer.headers["Nats-Service-Error"] == error
        assert answer.headers["Nats-Service-Error-Code"] == "400"
        await me._nc.jetstream().publish(f"cancel.{me.key}.{spec['id']}", b"")
        assert (await me.terminal(spec["id"]))["state"] == "cancelled"


async def test_the_documented_client_works_as_printed(fleet: Fleet, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PROTOCOL.read_text(), re.DOTALL)
    key = tmp_path / ".config" / "lender" / "submitter.nk"
    key.parent.mkdir(parents=True)
    key.write_bytes(fleet.submitter_seed)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={"HOME": str(tmp_path), "LENDER_URL": fleet.url, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIME_S)
    digest = hashlib.sha256(b"hello, lender\n").hexdigest()
    assert output.decode().split() == ["succeeded", digest, "hello.txt"]

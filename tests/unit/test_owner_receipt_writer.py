"""Receipts get to the disk in order, without the event loop, and wait for a disk that is full."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats_server import until

from lender.daemon import receipt_writer
from lender.daemon.receipt_writer import ReceiptWriter
from lender.protocol.signature import Signer, seed_from_entropy
from lender.state import receipts
from lender.state.receipts import ReceiptLog

SIGNER = Signer(seed_from_entropy(b"o" * 32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "receipts.jsonl"


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[ReceiptWriter]:
    made = ReceiptWriter(ReceiptLog(path, SIGNER))
    yield made
    await made.close(0.2)


def jobs(path: Path) -> list[Any]:
    return [one.get("job") for one in ReceiptLog(path).read()]


async def test_all_are_written_in_their_order(writer: ReceiptWriter, path: Path) -> None:
    heads = []
    writer.on_head = heads.append
    for number in range(500):
        writer.append({"lease": f"L{number}", "job": number})
    assert await writer.durable("L499")
    assert jobs(path) == list(range(500))
    assert ReceiptLog(path).verify() == []
    assert heads[-1] == writer.head
    assert writer.head.seq == 500


async def test_a_receipt_that_was_never_appended_is_not_waited_for(writer: ReceiptWriter) -> None:
    assert await writer.durable("L-other")
    await writer.flush()


async def test_a_full_disk_is_waited_out_and_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Full(path)
    monkeypatch.setattr(receipt_writer, "RETRY_S", 0.01)
    monkeypatch.setattr(receipt_writer, "HELD_MAX", 3)
    writer = ReceiptWriter(full)
    for number in range(5):
        writer.append({"lease": f"L{number}", "job": number})
    assert not await writer.durable("L4")
    await until(lambda: "No space left" in writer.fault)
    assert "3 receipts wait in memory, 2 more could not be kept" in writer.fault
    assert jobs(path) == []
    full.bytes_free = 1 << 20
    assert await writer.durable("L2")
    await writer.flush()
    await writer.close()
    assert writer.fault == ""
    assert jobs(path)[:3] == [0, 1, 2]
    assert "2 receipts could not be kept" in list(ReceiptLog(path).read())[3]["note"]
    assert ReceiptLog(path).verify() == []
    assert not await writer.durable("L4")  # its attempt's record stays


async def test_what_is_left_at_the_end_is_not_taken_for_written(path: Path) -> None:
    writer = ReceiptWriter(Full(path))
    writer.append({"lease": "L1"})
    waiting = asyncio.create_task(writer.durable("L1"))
    await writer.close(0.05)
    assert not await waiting
    assert not await writer.durable("L1")
    writer.append({"lease": "L2"})
    assert not await writer.durable("L2")


async def test_the_loop_goes_on_while_another_process_holds_the_log(
    writer: ReceiptWriter, path: Path
) -> None:
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer.append({"lease": "L1", "job": 1})
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert jobs(path) == []
    assert await writer.durable("L1")
    assert jobs(path) == [1]


def test_a_log_that_is_held_for_good_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "LOCK_S_MAX", 0.05)
    path.touch()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            ReceiptLog(path).append({"job": 1})


OTHER = """
import sys
from pathlib import Path
from lender.state.receipts import ReceiptLog
for number in range(50):
    ReceiptLog(Path(sys.argv[1])).append({"job": f"revoke-{number}"})
"""


async def test_lenderd_and_revokes_append_at_once(writer: ReceiptWriter, path: Path) -> None:
    others = [await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER, path)
              for _ in range(2)]  # fmt: skip
    number = 0
    while any(one.returncode is None for one in others):
        writer.append({"lease": f"L{number}", "job": number})
        number += 1
        await asyncio.sleep(0.002)
    assert [await one.wait() for one in others] == [0, 0]
    await writer.flush()
    log = ReceiptLog(path)
    assert log.verify() == []
    assert [one["seq"] for one in log.read()] == list(range(1, 101 + number))
    assert [job for job in jobs(path) if isinstance(job, int)] == list(range(number))


KILLED = """
import asyncio, sys
from pathlib import Path
from lender.state.receipts import ReceiptLog
from lender.daemon.receipt_writer import ReceiptWriter
from lender.protocol.signature import Signer, seed_from_entropy
async def main():
    writer = ReceiptWriter(ReceiptLog(Path(sys.argv[1]), Signer(seed_from_entropy(b"o" * 32))))
    number = 0
    while True:
        number += 1
        writer.append({"lease": f"L{number}", "job": number})
        if await writer.durable(f"L{number}"):
            print(number, flush=True)
asyncio.run(main())
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_durable(path: Path) -> None:
    told = 0
    for turn in range(1, 6):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(3 * turn):
                durable = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            durable = max([durable, *map(int, process.stdout.read().split())])
        told += durable
        log = ReceiptLog(path, SIGNER)
        log.append({"job": "next"})
        assert log.verify() == []
        assert len([job for job in jobs(path) if isinstance(job, int)]) >= told


class Full(ReceiptLog):
    """A log on a disk that is full as long as `bytes_free` is 0."""

    bytes_free = 0

    def append_all(self, receipts: Any) -> Any:  # noqa: ANN401 - as its base
        if not self.bytes_free:
            raise OSError(28, "No space left on device")
        return super().append_all(receipts)

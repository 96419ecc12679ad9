"""What ran can be read and proven, on a whole fleet of real processes."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.fleet import Fleet, Lender, wait_until
from lender.client.client import Client
from lender.protocol.job import Requires

# Whole fleets start, on a machine that may be busy.
pytestmark = pytest.mark.timeout(120)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRIES = """
import os, socket
print(os.environ["TRACEPARENT"])
for address in ("192.0.2.1", "192.0.2.2", "127.0.0.1"):
    try:
        socket.create_connection((address, 80), 1)
    except OSError:
        pass
"""


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[Fleet]:
    """A machine that has run nothing yet."""
    with Fleet(open_folder, ("desk",), workloads=("command",)) as running:
        yield running


def test_a_receipt_tells_of_tries_to_reach_a_network_and_the_log_is_proven(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = fleet.lenders["desk"]
    monkeypatch.setenv("TRACEPARENT", TRACE)
    said = fleet.submit("submit", "--", "/usr/bin/python3", "-I", "-S", "-c", TRIES)
    assert said.returncode == 0, said.stderr
    wait_until(lambda: bool(receipts(desk)), "the receipt is written")
    (receipt,) = receipts(desk)
    assert receipt["outcome"] == "succeeded"
    # From whoever called `lender submit` to the task, and to the machine's owner.
    assert (said.stdout, receipt["traceparent"]) == (f"{TRACE}\n", TRACE)
    assert receipt["network_attempts_blocked"] == 3
    assert receipt["memory_peak_bytes"] > 1 << 20
    assert receipt["cpu_s"] > 0
    assert receipt["signature"]
    told = desk.owner("log", receipt["job"]).stdout
    assert "network: blocked, 3 attempts" in told
    assert "files: scratch only" in told
    assert f"the submitter's trace: {TRACE}" in told
    wait_until(lambda: proof(desk)["published"].get("seq") == 1, "the head is published")
    assert proof(desk)["findings"] == []
    # Who both submits and lends is told what the fleet says, and what this machine does.
    monkeypatch.setenv("LENDER_STATE", str(desk.state))
    both = fleet.submit("why", receipt["job"]).stdout
    assert both.startswith("✓ ended: succeeded\n")
    assert f"On this machine:\n○ {receipt['job']} ended" in both
    told = json.loads(fleet.submit("why", "--json", receipt["job"]).stdout)
    assert (told["schema"], told["state"]) == ("lender.why-job/1", "succeeded")
    assert told["here"]["schema"] == "lender.why/1"
    assert told["here"]["receipt"]["job"] == receipt["job"]


ASKS = """
import os, socket
host, port = os.environ["https_proxy"].removeprefix("http://").split(":")
with socket.create_connection((host, int(port))) as made:
    made.sendall(b"CONNECT 127.0.0.1:443 HTTP/1.1\\r\\n\\r\\n")
    print(made.recv(100).split()[1].decode(), end="")
"""


async def test_a_network_is_had_once_the_owner_agrees_and_the_receipt_says_so(fleet: Fleet) -> None:
    desk = fleet.lenders["desk"]
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(
            ["/usr/bin/python3", "-I", "-S", "-c", ASKS], requires=Requires(net=("internet",))
        )
        told = "without the need of the network (any public host at ports 80 and 443)"
        while told not in await client.why(job):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)
        agreed = desk.owner(
            *("grant", fleet.submitter, "--workload", "command", "--net", "internet"),
            *("--when", "always", "--expires", "1d", "--replace", "--yes"),
        )
        assert "the network (any public host at ports 80 and 443)" in agreed.stdout
        assert (await job.ended(timeout_s=60)).state == "succeeded"
        assert [one.result.value async for one in job.results()] == [b"403"]
    wait_until(lambda: bool(receipts(desk)), "the receipt is written")
    (receipt,) = receipts(desk)
    assert receipt["network"] == ["internet"]
    assert receipt["network_attempts_blocked"] == 1
    told = desk.owner("log", receipt["job"]).stdout
    assert "network: internet by proxy, in " in told
    assert ", 1 attempt blocked" in told
    assert "the network (any public host at ports 80 and 443)" in desk.owner("grants").stdout


async def test_what_a_killed_lenderd_ran_is_in_the_log_all_the_same(fleet: Fleet) -> None:
    desk = fleet.lenders["desk"]
    async with Client(fleet.url, fleet.key) as client:
        job = await client.submit(["sleep", "60"], traceparent=TRACE)
        wait_until(desk.busy, "the task runs on desk")
        desk.kill()
        desk.start()
        wait_until(lambda: bool(receipts(desk)), "the receipt is written")
        (receipt, *_) = receipts(desk)
        assert (receipt["outcome"], receipt["ended"]) == ("lost", "lenderd died")
        assert (receipt["job"], receipt["traceparent"]) == (job.id, TRACE)
        assert 0 < receipt["ended_at"] - receipt["started_at"] < 60
        assert receipt["cpu_s"] > 0, "a crash lifts no budget"
        await job.cancel()
    assert proof(desk)["findings"] == []


def receipts(lender: Lender) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lender.owner("log", "--json").stdout)["receipts"]
    return found


def proof(lender: Lender) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lender.owner("log", "verify", "--json").stdout)
    return found

"""What a lease's tasks moved over the network, with lenderd or after it, and how much they may."""

import time
from pathlib import Path

import pytest

from lender.daemon import leftovers
from lender.daemon.network_meter import NetworkMeter
from lender.daemon.usage_recall import used_since
from lender.sandbox.egress.counters import UNBOUNDED, Counters
from lender.sandbox.plan import Network, plan_from_wire, plan_to_wire
from lender.state import attempt_records
from lender.state.attempt_records import AttemptRecord, AttemptRecords, AttemptTerms
from lender.state.folder import StateFolder
from lender.state.moved_bytes import MovedBytes, counters_path, forget_moved, moved_by
from lender.state.receipts import ReceiptLog


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def proxy_of(network: Network) -> Counters:
    return Counters.at(network.counters)


def test_what_is_said_before_the_file_is_there_holds_once_it_is(state: StateFolder) -> None:
    meter = NetworkMeter(counters_path(state, "L1"))
    meter.begin()
    meter.allow(1000)
    assert meter.read() == MovedBytes()
    proxy = proxy_of(meter.of(Network(("a.org",))))
    assert proxy.left() == 1000
    proxy.add(in_bytes=600, out_bytes=50)
    assert (meter.read(), proxy.left()) == (MovedBytes(600, 50), 350)
    meter.allow(None)
    assert proxy.left() == UNBOUNDED - 650
    meter.close()
    meter.close()
    assert list(state.attempts.iterdir()) == []
    proxy.close()


def test_each_lease_in_turn_has_its_own_count_and_may_move_nothing_at_first(
    state: StateFolder,
) -> None:
    meter = NetworkMeter(counters_path(state, "L1"))
    proxy = proxy_of(meter.of(Network(("a.org",))))
    meter.allow(None)
    proxy.add(in_bytes=70, out_bytes=7)
    meter.begin()
    assert (meter.read(), meter.before, proxy.left()) == (MovedBytes(), MovedBytes(70, 7), 0)
    meter.allow(100)
    proxy.add(in_bytes=30)
    assert (meter.read(), proxy.left()) == (MovedBytes(30, 0), 70)
    meter.close()
    proxy.close()


def left_behind(state: StateFolder, lease: str, terms: AttemptTerms, sandbox: str) -> None:
    scratch = state.scratch / sandbox
    scratch.mkdir(exist_ok=True)
    record = AttemptRecord(
        lease, f"job-{lease}", "U1", "command", "G-1", (), str(scratch), terms=terms
    )
    AttemptRecords(state.attempts).write(record)


def test_what_was_moved_under_a_lenderd_that_died_is_paid_for_once(state: StateFolder) -> None:
    """Two leases of one sandbox, one whose file is gone, and one that had no network."""
    now = time.time()
    networked = AttemptTerms(now - 10, 1, 500, None, (), network=("a.org",))
    left_behind(state, "L1", networked, "L1")
    left_behind(state, "L2", networked._replace(moved_before=(1000, 10)), "L1")
    left_behind(state, "L3", networked, "L3")
    left_behind(state, "L4", networked._replace(network=()), "L4")
    counters = Counters.make(counters_path(state, "L1"))
    counters.add(in_bytes=4000, out_bytes=25)
    counters.close()
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, now)
    told = {one["lease"]: one for one in log.read()}
    assert (told["L2"]["network_in_bytes"], told["L2"]["network_out_bytes"]) == (3000, 15)
    assert told["L2"]["network"] == ["a.org"]
    assert not {"network", "network_in_bytes"} & (told["L3"].keys() | told["L4"].keys())
    moved = [usage.moved_bytes for _, _, usage in used_since(0.0, log.read_back())]
    assert sum(moved) == 4 * 500 + 4025 + 3015
    assert list(state.attempts.iterdir()) == []


def test_files_of_those_that_have_a_record_yet_stay(state: StateFolder) -> None:
    terms = AttemptTerms(0.0, 1, 0, None, (), network=("a.org",))
    left_behind(state, "L1", terms, "L1")
    (record,) = AttemptRecords(state.attempts).read_all().records
    for name in ("L1", "L2"):
        Counters.make(counters_path(state, name)).close()
    forget_moved(state, [record])
    assert moved_by(state, record) == MovedBytes()
    assert not counters_path(state, "L2").exists()


def test_what_the_kernel_counted_before_it_was_cleared_is_charged(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the sandbox's cgroup, not of the lease that it worked for last."""
    monkeypatch.setattr(attempt_records, "is_leaf_of", lambda *_: True)  # also where there is none
    now = time.time()
    terms = AttemptTerms(now - 1000, 4, 0, None, (), cpu_before_s=2.0)
    left_behind(state, "L2", terms, "L1")
    (record,) = AttemptRecords(state.attempts).read_all().records
    record = record._replace(cgroup="/sys/fs/cgroup/lender-1-2/jobs/L1")
    AttemptRecords(state.attempts).write(record)
    log = ReceiptLog(state.receipts)
    leftovers.clear(state, log, now, {"L1": 9.5})
    (told,) = log.read()
    assert (told["cpu_s"], told["cpu_method"]) == (7.5, "counted by the kernel")


def test_a_network_crosses_to_the_sandbox_as_it_is(state: StateFolder) -> None:
    from sandboxes import LIMITS  # noqa: PLC0415 - needs wasmtime

    from lender.sandbox.plan import SandboxPlan  # noqa: PLC0415

    plan = SandboxPlan("L", "process", "J", 1, None, (), {}, {}, (), LIMITS, state.scratch)
    for network in (None, Network(("a.org",), ("b.org",), {"a.org": "1.2.3.4"}, state.path / "x")):
        one = plan._replace(network=network)
        assert plan_from_wire(plan_to_wire(one)) == one

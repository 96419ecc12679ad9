"""What runs on a pool of processes runs on a fleet: `LenderExecutor`."""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, as_completed
from pathlib import Path

import joblib
import pytest
from fleet import StandingFleet

from deploy.local.fleet import Fleet, wait_until
from lender.client import (
    Client,
    Limits,
    Rejected,
    TaskFailed,
    Unreachable,
    UntrustedValue,
    joblib_backend,
)
from lender.client.executor import LenderExecutor

WAIT_S = 120


@pytest.fixture(scope="module")
def standing() -> Iterator[StandingFleet]:
    """A machine whose owner lets functions run."""
    with StandingFleet("desk", workloads=("python",)) as fleet:
        yield fleet


@pytest.fixture
def pythons(standing: StandingFleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = standing.in_order()
    monkeypatch.setenv("LENDER_URL", fleet.url)
    monkeypatch.setenv("LENDER_KEY", str(fleet.key))
    return fleet


@pytest.mark.usefixtures("pythons")
def test_calls_and_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    offset = 100

    def add(one: int, other: int = 0) -> int:
        print("adding", one, "\x1b[2J")  # noqa: T201 - it is shown here
        print("hm", file=sys.stderr)  # noqa: T201 - this, too
        return one + other + offset

    with LenderExecutor() as executor:
        calls = {executor.submit(add, number, other=7): number for number in range(3)}
        for done in as_completed(calls, WAIT_S):
            assert done.result() == calls[done] + 107
        assert list(executor.map(pow, range(50), range(50), timeout=WAIT_S)) == [
            number**number for number in range(50)
        ]
        chunked = executor.map(add, range(50), chunksize=7, buffersize=2, timeout=WAIT_S)
        assert list(chunked) == list(range(100, 150))
        failed = executor.submit(divmod, 1, 0)
        assert isinstance(failed.exception(WAIT_S), ZeroDivisionError)
        with pytest.raises(Rejected, match="can't be pickled"):
            executor.submit(add, executor).result(WAIT_S)
        with pytest.raises(UntrustedValue, match="trust"):
            executor.submit(complex, 1).result(WAIT_S)
        with pytest.raises(TaskFailed, match="exit code 3"):
            executor.submit(os._exit, 3).result(WAIT_S)
    shown = capsys.readouterr()
    assert "adding 2 \\x1b[2J\n" in shown.out
    assert "hm\n" in shown.err
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 2)


def test_calls_meet_what_earlier_ones_of_their_executor_left_and_no_others(pythons: Fleet) -> None:
    def count(_: int) -> tuple[int, str]:
        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return builtins.calls, os.environ["LENDER_JOB"]  # type: ignore[attr-defined]

    with LenderExecutor() as one:
        seen = [one.submit(count, 0).result(WAIT_S) for _ in range(3)]
        seen += one.map(count, range(2), timeout=WAIT_S)
        with LenderExecutor() as other:
            assert other.submit(count, 0).result(WAIT_S)[0] == 1
    assert [calls for calls, _ in seen] == [1, 2, 3, 4, 5]
    jobs = {job for _, job in seen}
    assert len(jobs) == 4, "each is told of its own job"
    log = pythons.lenders["desk"].state / "receipts.jsonl"

    def receipts() -> list[str]:
        lines = map(json.loads, log.read_text().splitlines())
        return [one["job"] for one in lines if one.get("job") in jobs]

    wait_until(lambda: set(receipts()) == jobs, "a receipt for each job")


@pytest.mark.usefixtures("pythons")
def test_a_backend_of_joblib_goes_on_in_its_interpreter_from_one_parallel_to_the_next() -> None:
    def count() -> tuple[int, bool]:
        builtins.calls = getattr(builtins, "calls", 0) + 1  # type: ignore[attr-defined]
        return builtins.calls, "LENDER_JOB" in os.environ  # type: ignore[attr-defined]

    joblib_backend.register()
    with joblib.parallel_config(backend="lender"):
        seen = [joblib.Parallel(2)([joblib.delayed(count)()]) for _ in range(2)]
    assert seen == [[(1, True)], [(2, True)]]


def sleeping(fleet: Fleet) -> bool:
    """Whether some call runs."""
    return any(one.status()["running"] for one in fleet.lenders.values())


def test_a_call_can_be_cancelled_while_it_runs(pythons: Fleet) -> None:
    with LenderExecutor(2, limits=Limits(time_s=WAIT_S)) as executor:
        endless = executor.submit(time.sleep, 1000)
        wait_until(lambda: sleeping(pythons), "it runs")
        assert not endless.running()
        behind = [executor.submit(time.sleep, 1000) for _ in range(5)]
        assert endless.cancel()
        for one in behind:
            assert one.cancel()
        with pytest.raises(CancelledError):
            endless.result()
        # Nothing is left to wait for, and the machine has room for others.
        assert executor.submit(pow, 2, 3).result(WAIT_S) == 8
    wait_until(lambda: not sleeping(pythons), "it was ended")


def test_ctrl_c_ends_what_runs(pythons: Fleet, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from lender.client.executor import LenderExecutor\n"
        "with LenderExecutor() as executor:\n"
        "    list(executor.map(time.sleep, [1000] * 3))\n"
    )
    root = Path(__file__).parents[2]
    running = subprocess.Popen(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: sleeping(pythons), "it runs")
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=WAIT_S)
    finally:
        running.kill()
    assert said.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not sleeping(pythons), "it was ended")


@pytest.mark.usefixtures("pythons")
def test_what_was_submitted_is_done_also_where_nobody_holds_its_executor() -> None:
    program = "from lender.client import LenderExecutor; LenderExecutor().submit(print, 'dóne')"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONIOENCODING": "ascii",
        },
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("d\\xf3ne\n", "")


def test_a_fleet_that_is_not_there_is_told_at_once(
    pythons: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LENDER_URL")
    with pytest.raises(Unreachable):
        LenderExecutor(client=Client("nats://127.0.0.1:1", pythons.key))
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        LenderExecutor(0)
    with pytest.raises(TypeError, match=r"no option \['cpu'\], but .*'limits'"):
        LenderExecutor(cpu=2)  # type: ignore[call-arg] # what is typed at a prompt

"""The chaos test's verdict: it sees a result that is missing, doubled, wrong, or not allowed."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from chaos.owners import Granted, Owner
from chaos.verdict import Books, JobKey, faults_of_results

from deploy.local.fleet import Lender
from deploy.local.guard import Guard
from lender.protocol.job import Array, JobSpec
from lender.protocol.result import TaskResult, Terminal
from lender.protocol.signature import Signer, seed_from_entropy
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

ALICE = Signer(seed_from_entropy(bytes(32))).public_key
KEY = JobKey(ALICE, "job-0001")
COUNTS = {"tasks_succeeded": 3, "tasks_failed": 0, "tasks_total": 3}


def squares(*tasks: int, wrong: int | None = None) -> list[TaskResult]:
    values = {task: b"%d\n" % (task * task + 5 + (task == wrong)) for task in tasks}
    return [
        TaskResult(task=task, state="succeeded", exit_code=0, value=values[task]) for task in tasks
    ]


def books(results: list[TaskResult], *states: str) -> Books:
    spec = JobSpec(
        v=1,
        id=KEY.job,
        submitter=ALICE,
        name="squares 5",
        workload="command",
        runtime="process",
        argv=("sh",),
        array=Array(count=3),
        created_at=1.0,
        not_after=2.0,
    )
    words = [
        Terminal.model_validate({"job": KEY.job, "state": state, "finished_at": 1.0, **COUNTS})
        for state in states
    ]
    return Books(jobs={KEY: spec}, terminals={KEY: words}, results={KEY: results})


def test_a_job_as_it_should_be_has_no_fault() -> None:
    assert faults_of_results(books(squares(0, 1, 2), "succeeded"), [KEY]) == []


@pytest.mark.parametrize(
    ("results", "states", "fault"),
    [
        (squares(0, 1), ["succeeded"], "no result of tasks [2]"),
        (squares(0, 1, 2, 1), ["succeeded"], "two results of tasks [1]"),
        (squares(0, 1, 2, wrong=2), ["succeeded"], "wrong result of task 2"),
        (squares(0, 1, 2), ["failed"], "ended as failed"),
        (squares(0, 1, 2), [], "0 last words"),
        (squares(0, 1, 2), ["succeeded", "succeeded"], "2 last words"),
    ],
)
def test_each_fault_of_a_job_is_told(
    results: list[TaskResult], states: list[str], fault: str
) -> None:
    (told,) = faults_of_results(books(results, *states), [KEY])
    assert fault in told


def test_an_accepted_job_that_is_gone_is_told() -> None:
    (told,) = faults_of_results(Books(), [KEY])
    assert "is gone" in told


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    now = time.time()
    state = StateFolder(tmp_path / "desk")
    state.create()
    mine = Owner(Lender("desk", tmp_path, "", {}, Guard()), {"alice": ALICE})
    mine.grants["G-1"] = Granted(ALICE, now - 100, now - 10)
    mine.closed.append((now - 60, now - 50))
    return mine


def ran(owner: Owner, begun_s_ago: float, ended_s_ago: float, **changes: object) -> None:
    """Write a receipt into the owner's log."""
    now = time.time()
    receipt: Mapping[str, object] = {
        "lease": "L-1",
        "job": "job-0001",
        "submitter": ALICE,
        "workload": "command",
        "grant": "G-1",
        "outcome": "succeeded",
        "tasks_run": 1,
        "started_at": now - begun_s_ago,
        "ended_at": now - ended_s_ago,
        **changes,
    }
    ReceiptLog(StateFolder(owner.lender.state).receipts).append(json.loads(json.dumps(receipt)))


def test_what_was_allowed_has_no_fault(owner: Owner) -> None:
    ran(owner, 90, 80)
    ran(owner, 61, 55)  # begun before the pause, and reported in it
    ran(owner, 55, 55, outcome="evicted", tasks_run=0)  # handed back unbegun
    ran(owner, 20, 1, outcome="lost")  # its end was found out after the revoke
    assert owner.faults() == []


@pytest.mark.parametrize(
    ("begun_s_ago", "ended_s_ago", "changes", "fault"),
    [
        (90, 80, {"grant": "G-2"}, "which nobody granted"),
        (90, 80, {"workload": "render"}, "which nobody granted"),
        (90, 80, {"submitter": "U-mallory"}, "another submitter's grant"),
        (110, 90, {}, "before it was granted"),
        (20, 5, {}, "after the revoke"),
        (5, 4, {"outcome": "lost"}, "after the revoke"),
        (55, 40, {}, "while the owner had closed the machine"),
    ],
)
def test_what_was_not_allowed_is_told(
    owner: Owner,
    begun_s_ago: float,
    ended_s_ago: float,
    changes: dict[str, object],
    fault: str,
) -> None:
    ran(owner, begun_s_ago, ended_s_ago, **changes)
    (told,) = owner.faults()
    assert fault in told

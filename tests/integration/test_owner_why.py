"""`lender why`: the first thing that keeps work away, every number, and when it can change."""

import time
from typing import Any

import pytest
from owner_machine import BOB, Machine, grant, machine

from lender.state.receipts import ReceiptLog

__all__ = ["machine"]

COMFORT = {
    "rung": "full",
    "cores": 15.0,
    "presence": "away",
    "reason": "",
    "figures": "pressure 0.4 %",
    "findings": [],
    "idle_s": 840.0,
    "locked": True,
    "desktop": True,
    "sources": ["mutter"],
}
HOT = {
    "signal": "temperature_c",
    "rung": "frozen",
    "text": "92 °C, 3 under the sensor's limit",
    "value": -3.0,
    "limit": -5.0,
    "clears_at": -15.0,
}


def agreed(machine: Machine, grant_id: str = "G-1", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    one = grant(machine.state, grant_id)
    return {
        "id": one.id,
        "submitter": one.submitter,
        "name": "alice",
        "workload": "render",
        "not_after": one.not_after,
        "when": "away",
        **more,
    }


def test_a_machine_that_lends_says_what_lets_it(machine: Machine) -> None:
    budget = {"grant": "G-1", "measure": "cpu_s", "per": "day", "amount": 36_000.0, "used": 3600.0}
    status = {"comfort": COMFORT, "machine": {"cores": 16}, "budgets": [budget]}
    machine.daemon(status={**status, "grants": [agreed(machine)]})
    code, told = machine.json("why")
    assert (code, told["schema"], told["lends"], told["because"]) == (0, "lender.why/1", True, "")
    shown = machine.lender("why").stdout
    assert shown.startswith("● This machine lends.\n")
    assert "✓ machine    rung full: 15 of 16 cores may be lent. Machine comfortable" in shown
    assert "✓ G-1  alice: render, away, until" in shown
    assert "1 of 10 CPU hours today" in shown


@pytest.mark.parametrize(
    ("status", "step", "reason", "change"),
    [
        ({"grants": []}, "consent", "nothing is granted, so nothing runs", "lender grant"),
        ({"connected": False}, "broker", "not connected to nats://127.0.0.1:1", "lender doctor"),
        (
            {"comfort": {**COMFORT, "rung": "frozen", "cores": 0.0, "findings": [HOT]}},
            "machine",
            "92 °C, 3 under the sensor's limit",
            "",
        ),
        (
            {"comfort": {**COMFORT, "new_work": False}},
            "machine",
            "rung full",
            "",
        ),
    ],
)
def test_the_first_thing_in_the_way_is_the_reason(
    machine: Machine, status: dict[str, Any], step: str, reason: str, change: str
) -> None:
    grant(machine.state, "G-1")
    machine.daemon(status=status)
    told = machine.json("why")[1]
    (kept,) = (one for one in told["steps"] if not one["holds"])
    assert kept["name"] == step
    assert reason in kept["text"]
    assert reason in told["because"]
    assert change in kept["change"]
    assert machine.lender("why").stdout.startswith(f"○ This machine takes no work: {kept['text']}")


def test_every_finding_has_its_number_its_limit_and_its_way_back(machine: Machine) -> None:
    grant(machine.state, "G-1")
    comfort = {**COMFORT, "rung": "frozen", "findings": [HOT], "climbs_at": time.time() + 45}
    machine.daemon(status={"comfort": comfort})
    shown = machine.lender("why").stdout
    assert "→ frozen   temperature_c: 92 °C, 3 under the sensor's limit (-3, limit -5)" in shown
    assert "[ends at -15, in 4" in shown


def test_a_grant_that_does_not_hold_now_says_why_and_when_it_opens(machine: Machine) -> None:
    closed = agreed(machine, now="you are here", opens_at=time.time() + 120)
    machine.daemon(status={"comfort": COMFORT, "grants": [closed]})
    shown = machine.lender("why").stdout
    assert "○ This machine takes no work: no grant holds right now; you are here" in shown
    assert "✗ G-1  alice: render, away, until" in shown
    assert "not now, you are here [opens " in shown
    about = machine.lender("why", "alice").stdout
    assert about.startswith("○ This machine takes no work: no grant holds right now; you are here")


def test_a_pause_says_when_it_ends(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    machine.lender("pause", "--for", "2h")
    told = machine.json("why")[1]
    assert told["because"] == "you have paused it"
    assert "ends by itself" in next(s for s in told["steps"] if not s["holds"])["change"]


def test_a_job_that_stands_still_says_why(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    attempt = {"state": "frozen", "held": "you are here", "grant": "G-1"}
    machine.daemon(status={"comfort": COMFORT}, attempt=attempt)
    shown = machine.lender("why", "job-o").stdout
    assert shown.startswith("○ stands still: you are here\n")
    assert "for alice" in shown
    assert machine.json("why", "job-one")[1]["job"]["job"] == "job-one"


def test_a_job_that_is_over_and_a_submitter_who_was_sent_away(machine: Machine) -> None:
    grant(machine.state, "G-2", BOB)
    machine.lender("revoke", "--submitter", "bob")
    machine.daemon(status={"withdrawn": [{"submitter": BOB, "name": "bob"}]})
    assert "you have withdrawn what you granted" in machine.lender("why", "bob").stdout
    ReceiptLog(machine.state.receipts).append(
        {"lease": "L", "job": "J-7Q2", "ended": "you revoked", "ended_at": time.time()}
    )
    assert "J-7Q2 ended" in machine.lender("why", "J-7Q").stdout
    done = machine.lender("why", "J-none")
    assert done.returncode == 1
    assert "neither runs nor ran here" in done.stderr


def test_without_lenderd_that_is_the_reason(machine: Machine) -> None:
    grant(machine.state, "G-1")
    done = machine.lender("why")
    assert done.returncode == 5
    assert done.stdout.startswith("○ This machine takes no work: lenderd does not run")
    assert "start lenderd" in done.stdout

"""`lender status`, `grants`, `doctor` and `log`: what an owner can read, and from where."""

import json
import os
import pty
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from owner_machine import ALICE, BOB, BOUND_S, LENDER, Machine, grant, machine
from terminal import Terminal, environment

from lender.state.folder import StateFolder
from lender.state.intent_file import StoredIntent, write_stored

__all__ = ["machine"]


def test_status_tells_who_runs_what_and_who_may(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    done = machine.lender("status")
    assert done.returncode == 0
    assert done.stdout.startswith("● Lending, half in use    desk-7 · connected to nats://")
    assert "for alice  render  3/8 tasks  6m12s" in done.stdout
    assert "Allowed  alice: render until" in done.stdout
    assert "lender revoke --all" in done.stdout
    assert "no wasm: no wheel. 64 bit" in done.stdout


COMFORT = {
    "rung": "full",
    "cores": 15.0,
    "presence": "away",
    "reason": "",
    "figures": "pressure 0.4 %, 61 °C, on mains",
    "findings": [],
    "idle_s": 840.0,
    "locked": True,
    "desktop": True,
    "remote_sessions": 0,
    "sources": ["mutter"],
}
BUSY = {
    "signal": "cpu_others",
    "rung": "reduced",
    "text": "others use 5.1 of 16 cores",
    "value": 5.1,
    "limit": 4.0,
    "clears_at": 3.0,
}
FULL = {
    "comfort": COMFORT,
    "machine": {"cores": 16},
    "withdrawn": [{"submitter": BOB, "name": "bob"}],
    "today": {"jobs": 3, "seconds": 2460, "energy_wh": 60.0},
    "budgets": [
        {"grant": "", "measure": "cpu_s", "per": "day", "amount": 36_000.0, "used": 7560.0},
        {"grant": "G-1", "measure": "energy_wh", "per": "week", "amount": 1000.0, "used": 60.0},
    ],
}


def test_status_says_it_as_the_owner_trusts_it(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    attempt = {"cpu": 2, "memory_peak_bytes": 1 << 30, "runtime": "wasm", "job_name": "fold"}
    machine.daemon(status=FULL, attempt=attempt)
    lines = machine.lender("status").stdout.splitlines()
    assert lines[0].startswith("● Lending, light use    desk-7 · connected to nats://")
    assert lines[1] == (
        "  You: away 14 min, screen locked (mutter). "
        "Machine comfortable (pressure 0.4 %, 61 °C, on mains)"
    )
    assert lines[2] == (
        '  Running  job-one  "fold"  for alice  render (wasm)  3/8 tasks  2/16 cores  1 GiB  6m12s'
    )
    assert lines[3] == "           no network · sees only its own scratch folder"
    assert lines[4].startswith("  Allowed  alice: render until ")
    assert lines[4].endswith(" · bob: nothing (withdrawn)")
    assert lines[5] == "  Budget   2.1 of 10 CPU hours today"
    assert lines[6] == "  Today    3 jobs · 41 min · ~0.06 kWh (estimate)"
    assert lines[-1] == "  Stop everything now:  lender revoke --all"


def test_status_says_what_presses_and_what_is_held_back(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    comfort = {**COMFORT, "rung": "reduced", "findings": [BUSY], "presence": "present"}
    comfort |= {"sources": [], "locked": None, "idle_s": None}
    attempt = {"state": "frozen", "held": "others need the cores", "network_attempts_blocked": 2}
    machine.daemon(status={"comfort": comfort}, attempt=attempt)
    shown = machine.lender("status").stdout
    assert shown.startswith("● Lending less: others use 5.1 of 16 cores    desk-7")
    assert "You: taken to be here, no source can tell. Machine lends less: others use 5.1" in shown
    assert "held back: others need the cores" in shown
    assert "no network (2 attempts blocked)" in shown


def test_status_says_where_work_may_get_to_and_what_it_moved(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    attempt = {"network": ["a.org"], "network_in_bytes": 3 << 20, "network_out_bytes": 2048}
    machine.daemon(attempt=attempt | {"network_attempts_blocked": 2})
    shown = machine.lender("status").stdout
    told = "the network (a.org at ports 80 and 443) (3 MiB in, 2 KiB out, 2 attempts blocked)"
    assert f"{told} · sees only" in shown


def test_status_tells_of_sandboxes_that_wait_for_more(machine: Machine) -> None:
    waiting = {"job": "job-one", "sandboxes": 1}
    machine.daemon(status={**FULL, "running": [], "warm": [waiting, waiting | {"sandboxes": 2}]})
    shown = machine.lender("status").stdout
    assert "Running  1 warm sandbox waits for more of job-one; nothing runs in it" in shown
    assert "2 warm sandboxes wait for more of job-one; nothing runs in them" in shown


def test_nothing_allowed_is_not_called_lending(machine: Machine) -> None:
    machine.daemon(status={"phase": "lending"})
    assert machine.lender("status").stdout.startswith("○ Not lending: nothing is allowed")
    assert machine.lender("status", "--check").returncode == 3


def test_a_reader_that_goes_away_is_no_fault(machine: Machine) -> None:
    command = f"{LENDER} status | head -1; echo code ${{PIPESTATUS[0]}}"
    grant(machine.state, "G-1")
    machine.daemon()
    done = subprocess.run(
        ["bash", "-c", f"{command}; {LENDER} grants | true"],
        env={**os.environ, "LENDER_STATE": str(machine.state.path)},
        capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("● Lending")


def watched(machine: Machine, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(LENDER), "status", "--watch", *more],
        env={**os.environ, "LENDER_STATE": str(machine.state.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_watching_without_a_terminal_appends_a_line_for_each_change(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    watching = watched(machine)
    assert watching.stdout is not None
    first = [watching.stdout.readline()]
    while "revoke --all" not in first[-1]:
        first.append(watching.stdout.readline())
    assert first[0].startswith("● Lending, nothing runs")
    machine.lender("pause")
    assert "○ Paused; running: nothing" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    left, faults = watching.communicate(timeout=BOUND_S)
    assert (watching.returncode, left, faults) == (0, "", "")


def test_watching_as_json_is_a_document_a_line(machine: Machine) -> None:
    watching = watched(machine, "--json")
    assert watching.stdout is not None
    told = [json.loads(watching.stdout.readline()) for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=BOUND_S)
    assert [one["schema"] for one in told] == ["lender.status/1"] * 2


def test_watching_on_a_terminal_redraws_and_leaves_it_clean(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    terminal = Terminal([str(LENDER), "status", "--watch"], environment(machine.state.path))
    try:
        terminal.sees("● Lending, nothing runs")
        machine.lender("pause")
        terminal.sees("○ Paused")
        assert "● Lending" not in terminal.text
        terminal.press("\x03")
        assert terminal.ends() == 0
    finally:
        terminal.close()
    assert "Traceback" not in terminal.shown
    assert terminal.shown.rfind("\x1b[?25h") > terminal.shown.rfind("\x1b[?25l") >= 0


def test_a_jobs_name_cannot_steer_the_owners_terminal(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    assert "\x1b" not in machine.lender("status").stdout


def test_status_as_json_is_versioned(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon()
    code, told = machine.json("status")
    assert (code, told["schema"], told["phase"]) == (0, "lender.status/1", "lending")
    assert told["grants"][0]["submitter"] == ALICE


def test_check_answers_by_its_exit_code(machine: Machine) -> None:
    assert machine.lender("status", "--check").returncode == 5
    machine.daemon()
    assert machine.lender("status", "--check").returncode == 3
    grant(machine.state, "G-1")
    assert machine.lender("status", "--check").returncode == 0
    machine.lender("pause")
    assert machine.lender("status", "--check").returncode == 3


@pytest.mark.parametrize("stopped", [False, True])
def test_without_lenderd_the_files_tell(machine: Machine, *, stopped: bool) -> None:
    grant(machine.state, "G-1")
    grant(machine.state, "G-2", BOB, not_after=time.time() - 1)
    machine.lender("pause")
    if stopped:
        os.kill(machine.daemon().pid, signal.SIGSTOP)
    done = machine.lender("status")
    assert done.returncode == 5
    reason = "lenderd does not answer" if stopped else "lenderd does not run"
    assert done.stdout.startswith(f"○ Not lending: {reason}")
    assert "Paused   by you" in done.stdout
    assert ("lenderd obeys when it wakes" if stopped else "will start paused") in done.stdout
    assert "alice: render" in done.stdout
    assert "bob" not in done.stdout


@pytest.mark.parametrize("verb", ["status", "why"])
@pytest.mark.parametrize("lenderd_runs", [False, True])
def test_a_pause_of_somebody_else_is_not_told_as_yours(
    machine: Machine, verb: str, *, lenderd_runs: bool
) -> None:
    said = StoredIntent(paused=True, paused_at=time.time(), said_by=pwd.getpwnam("nobody").pw_uid)
    write_stored(machine.state, said)
    if lenderd_runs:
        machine.daemon()
    told = machine.lender(verb).stdout
    assert "another user of this machine (nobody)" in told
    assert "you have paused" not in told


def test_a_stranger_sees_the_status_but_no_file(machine: Machine) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    assert machine.lender_as_stranger("status").returncode == 5
    machine.daemon()
    assert "for alice  render" in machine.lender_as_stranger("status").stdout


def test_no_lender_here_names_the_way_out(machine: Machine) -> None:
    done = machine.lender("status", "--state", "/nonexistent/lender")
    assert done.returncode == 5
    assert "name its state folder with --state" in done.stderr


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_for_terminals_without_no_color(machine: Machine, *, no_color: bool) -> None:
    machine.daemon()
    environment = {"LENDER_STATE": str(machine.state.path), "TERM": "xterm", "LANG": "C.UTF-8"}
    if no_color:
        environment["NO_COLOR"] = "1"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(LENDER, ["lender", "status"], environment)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    os.close(terminal)
    assert "○".encode() in shown
    assert (b"\x1b[" in shown) is not no_color


def test_grants_lists_what_holds_what_ended_and_what_is_ignored(machine: Machine) -> None:
    grant(machine.state, "G-1")
    grant(machine.state, "G-2", BOB, not_after=time.time() - 60)
    (machine.state.grants / "G-3.toml").write_text("id = 3")
    machine.lender("revoke", "--submitter", "alice")
    done = machine.lender("grants")
    assert "○ G-1  alice: render, withdrawn; was until" in done.stdout
    assert "○ G-2  bob: render, ended" in done.stdout
    assert "! ignored: " in done.stdout
    code, told = machine.json("grants")
    assert [g["state"] for g in told["grants"]] == ["withdrawn", "ended"]
    assert (code, len(told["ignored"])) == (0, 1)


SELF_TEST_S = 160
"""Without a lenderd doctor tries sandboxes, which get what others leave of the processor."""


def test_doctor_finds_what_keeps_a_machine_from_lending(machine: Machine) -> None:
    code, told = machine.json("doctor", timeout=SELF_TEST_S)
    levels = {check["name"]: check["level"] for check in told["checks"]}
    assert (code, told["schema"], told["can_lend"]) == (1, "lender.doctor/1", False)
    assert levels["consent"] == "blocker"
    assert levels["daemon"] == "blocker"
    assert all(c["mend"] for c in told["checks"] if c["level"] == "blocker")


def test_doctor_helps_before_there_is_a_lender(machine: Machine, tmp_path: Path) -> None:
    done = machine.lender("doctor", "--state", str(tmp_path / "none"), timeout=SELF_TEST_S)
    assert done.returncode == 1
    assert "no lender at" in done.stdout
    assert "Python 3" in done.stdout


def test_doctor_sees_an_unreachable_nats_server_and_one_that_refuses(machine: Machine) -> None:
    grant(machine.state, "G-1")
    machine.daemon(url="nats://127.0.0.1:1")
    assert "no NATS server at 127.0.0.1:1" in machine.lender("doctor").stdout
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (machine.state.path / "again").mkdir()
        other = Machine(machine.state.path / "again")
        try:
            grant(other.state, "G-1")
            other.daemon(url=f"nats://127.0.0.1:{port}")
            shown = other.lender("doctor").stdout
        finally:
            other.close()
    assert f"connected to nats://127.0.0.1:{port}" in shown


def test_doctor_names_loose_modes_and_faulty_files(machine: Machine) -> None:
    machine.tested_daemon()
    grant(machine.state, "G-1")
    grant(machine.state, "G-2", BOB)
    (machine.state.grants / "G-1.toml").chmod(0o666)
    machine.state.grants.chmod(0o755)
    (machine.state.tombstones / "no grant's name").touch()
    told = machine.json("doctor")[1]
    texts = "\n".join(f"{c['name']}: {c['text']}" for c in told["checks"])
    assert "state.mode: others can reach" in texts
    assert "it can be written by others" in texts
    assert "consent.ban: every grant counts as withdrawn" in texts


def test_doctor_notices_a_clock_that_was_set_back(machine: Machine) -> None:
    machine.tested_daemon()
    grant(machine.state, "G-1")
    ahead = time.time() + 7200
    os.utime(machine.state.grants, (ahead, ahead))
    assert "the clock is behind" in machine.lender("doctor").stdout


def test_doctor_changes_nothing(machine: Machine) -> None:
    def look(state: StateFolder) -> str:
        found = sorted(state.path.rglob("*"))
        return json.dumps([(str(p), p.lstat().st_mtime_ns, p.lstat().st_mode) for p in found])

    grant(machine.state, "G-1")
    machine.tested_daemon()
    before = look(machine.state)
    machine.lender("doctor")
    assert look(machine.state) == before

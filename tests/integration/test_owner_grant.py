"""`lender grant`: says what is allowed, asks, and writes exactly that."""

import hashlib
import os
import pty
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from owner_machine import ALICE, BOB, LENDER, Machine, machine

from lender.core.budget import parse_budget
from lender.core.schedule import parse_when
from lender.sandbox.processes import tree
from lender.state.consent_files import read_consent
from lender.state.folder import StateFolder
from lender.state.receipts import ReceiptLog

__all__ = ["machine"]

RENDER = ("--workload", "render", "--expires", "30d")


def answer(machine: Machine, text: str, *arguments: str) -> int:
    """Run the command in a terminal and type an answer."""
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(LENDER), *arguments],
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LENDER_STATE": str(machine.state.path)},
    )
    os.write(control, text.encode() + b"\n")
    try:
        return process.wait(20)
    finally:
        os.close(control)
        os.close(terminal)


def test_what_was_shown_is_what_is_written(machine: Machine) -> None:
    digest = "ab" * 32
    budget = ["--budget", "10cpuh/day,5GB/week", "--budget", "0.5kWh/day"]
    code, told = machine.json(
        "grant", f"alice={ALICE}", "--workload", f"render@sha256:{digest}", "--cpu", "4",
        "--mem", "2G", "--vram", "3G", "--net", "none", "--when", "idle", *budget,
        "--expires", "30d", "--yes",
    )  # fmt: skip
    assert (code, told["schema"]) == (0, "lender.grant/1")
    for part in (
        f"alice ({ALICE})",
        "4 cores and 2 GiB of memory, a GPU with 3 GiB of its memory, no network",
        "only while you do not use the machine",
        "at most 10 CPU hours a day, at most 5 GB moved a week, at most 0.5 kWh a day",
        "cannot read your files",
        f"only the program sha256:{digest}",
        "this machine knows another as render",
        "Withdraw any time: lender revoke.",
    ):
        assert part in told["text"]
    (grant,) = read_consent(machine.state).valid(time.time())
    assert (grant.submitter, grant.workload, grant.digest) == (ALICE, "render", digest)
    assert (grant.cpu, grant.memory_bytes) == (4, 2 << 30)
    assert (grant.vram_bytes, grant.when) == (3 << 30, parse_when("idle"))
    assert grant.budget == parse_budget(["10cpuh/day", "5GB/week", "0.5kWh/day"])
    assert told["grant"]["budget"][0]["text"] == "10 CPU hours a day"
    assert grant.not_after - time.time() == pytest.approx(30 * 86_400, abs=60)
    content = (machine.state.grants / f"{grant.id}.toml").read_text()
    assert hashlib.sha256(told["text"].encode()).hexdigest() in content
    assert f"granted_by_uid = {os.getuid()}" in content


def test_without_a_word_on_it_a_grant_is_for_when_the_owner_is_away(machine: Machine) -> None:
    code, told = machine.json("grant", ALICE, *RENDER, "--yes")
    assert code == 0
    assert "only while you are away" in told["text"]
    assert "no GPU, no network" in told["text"]
    (grant,) = read_consent(machine.state).grants
    assert grant.when == parse_when("away")
    assert (grant.vram_bytes, grant.budget) == (0, ())


def test_what_is_wrong_with_a_time_is_named(machine: Machine) -> None:
    done = machine.lender("grant", ALICE, *RENDER, "--when", "Mon 25:00-26:00", "--yes")
    assert done.returncode == 2
    assert "25:00 in 'Mon 25:00-26:00' is no time of day" in done.stderr


@pytest.mark.parametrize("how", ["unasked", "refused", "mistyped", "answered no"])
def test_nothing_is_made_before_the_yes(tmp_path: Path, how: str) -> None:
    fresh = Machine.__new__(Machine)
    fresh.state = StateFolder(tmp_path / "not" / "yet")
    if how == "answered no":
        assert answer(fresh, "n", "grant", ALICE, *RENDER) == 1
    else:
        submitter = "nobody" if how == "mistyped" else ALICE
        more = ("--cpu", "0", "--yes") if how == "refused" else ()
        assert fresh.lender("grant", submitter, *RENDER, *more).returncode == 2
    assert not (tmp_path / "not").exists()


def test_without_room_nothing_is_granted_and_nothing_is_left(machine: Machine) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = machine.lender("grant", ALICE, *RENDER, "--yes", preexec_fn=no_room)
    assert done.returncode == 1
    assert "nothing was granted, could not save" in done.stderr
    assert list(machine.state.grants.iterdir()) == []


def test_a_folder_of_something_else_does_not_become_a_state_folder(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("mine")
    machine = Machine.__new__(Machine)
    machine.state = StateFolder(tmp_path)
    done = machine.lender("grant", ALICE, *RENDER, "--yes")
    assert done.returncode == 2
    assert "no lender's state folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_a_workload_with_a_program_is_pinned_and_a_changed_one_asks_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = tmp_path / "catalogue" / "render" / "workload.toml"
    described.parent.mkdir(parents=True)
    text = 'name = "render"\nruntime = "wasm"\nsha256 = "{}"\n'
    described.write_text(text.format("ab" * 32))
    monkeypatch.setenv("LENDERD_WORKLOADS", str(tmp_path / "catalogue"))
    _, told = machine.json("grant", ALICE, *RENDER, "--yes")
    assert f"only the program sha256:{'ab' * 32}; a changed one asks you again" in told["text"]
    (grant,) = read_consent(machine.state).grants
    assert grant.digest == "ab" * 32
    assert "changed" not in machine.lender("grants").stdout

    described.write_text(text.format("cd" * 32))
    assert "workload changed since you agreed" in machine.lender("grants").stdout
    _, listed = machine.json("grants")
    assert listed["grants"][0]["workload_changed"] is True
    machine.lender("grant", ALICE, *RENDER, "--replace", "--yes")
    assert "changed since" not in machine.lender("grants").stdout


def test_a_workload_of_the_owners_own_is_pinned_and_what_lenderd_does_not_know_is_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    described = tmp_path / "lender" / "workloads" / "mine" / "workload.toml"
    described.parent.mkdir(parents=True)
    described.write_text(f'name = "mine"\nruntime = "wasm"\nsha256 = "{"ab" * 32}"\n')
    mine = ("--workload", "mine", "--expires", "30d", "--yes")
    _, told = machine.json("grant", ALICE, *mine)
    assert told["grant"]["digest"] == "ab" * 32
    assert "lenderd knows no workload" not in told["text"]

    machine.daemon(status={"workloads": {"checksum": "cd" * 32}})
    _, told = machine.json("grant", ALICE, *mine)
    assert told["grant"]["digest"] == "ab" * 32, "not any program, once lenderd knows it"
    assert "! lenderd knows no workload mine: so far nothing runs" in told["text"]


def test_a_workload_without_a_program_says_that_any_may_come(machine: Machine) -> None:
    _, told = machine.json("grant", ALICE, "--class", "command", "--expires", "1d", "--yes")
    assert "whatever program comes with the job" in told["text"]


def test_a_second_grant_shows_the_first_and_ends_it_only_when_told(machine: Machine) -> None:
    machine.lender("grant", f"alice={ALICE}", *RENDER, "--cpu", "7", "--yes")
    (first,) = read_consent(machine.state).grants
    _, told = machine.json("grant", "alice", *RENDER, "--yes")
    assert (
        f"{first.id} (each task 7 cores and 512 MiB of memory, no GPU, no network; only"
        in told["text"]
    )
    assert "stays beside it; --replace would end it" in told["text"]
    assert len(read_consent(machine.state).valid(time.time())) == 2

    record = machine.attempt("one", first)
    done = machine.lender("grant", "alice", *RENDER, "--replace", "--yes")
    assert done.returncode == 0, done.stdout
    assert f"This replaces {first.id}" in done.stdout
    assert f"✓ {first.id} ended" in done.stdout
    (left,) = read_consent(machine.state).valid(time.time())
    assert left.id in done.stdout
    assert not tree.members(record.roots)


def test_a_name_is_forgotten_when_its_last_grant_is_withdrawn(machine: Machine) -> None:
    machine.lender("grant", f"alice={ALICE}", *RENDER, "--yes")
    machine.lender("revoke", "--submitter", "alice")
    done = machine.lender("grant", "alice", *RENDER, "--yes")
    assert done.returncode == 2
    assert "neither a name from a grant of yours" in done.stderr
    assert machine.lender("grant", f"alice={BOB}", *RENDER, "--yes").returncode == 0


def test_grants_tells_what_each_was_used_for(machine: Machine) -> None:
    machine.lender("grant", f"alice={ALICE}", *RENDER, "--budget", "2cpuh/week", "--yes")
    machine.lender("grant", f"bob={BOB}", *RENDER, "--yes")
    by_name = {one["name"]: one["id"] for one in machine.json("grants")[1]["grants"]}
    log, now = ReceiptLog(machine.state.receipts), time.time()
    for lease, job in enumerate(("J-1", "J-1", "J-2")):
        log.append({
            "lease": f"lease-{lease}", "job": job, "submitter": ALICE, "workload": "render",
            "grant": by_name["alice"], "outcome": "succeeded", "ended": "finished",
            "started_at": now - 60, "ended_at": now, "cpu_s": 1200.0, "bytes_in": 1 << 20,
            "bytes_out": 0, "energy_wh": 2.0,
        })  # fmt: skip
    log.append({"grant": by_name["alice"], "job": "J-3", "ended_at": "never"})
    shown = machine.lender("grants").stdout
    assert "used for 2 jobs, 1h00m of CPU time, 3 MiB moved, last" in shown
    assert "1 of 2 CPU hours this week" in shown
    assert "not used yet" in shown
    _, told = machine.json("grants")
    used = {one["name"]: one["used"] for one in told["grants"]}
    assert (used["alice"]["jobs"], used["alice"]["attempts"]) == (2, 3)
    assert used["alice"]["budget"][0]["left"] == 3600.0
    assert used["bob"]["jobs"] == 0


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "Only lenderd knows whether this machine can measure energy"),
        ({}, "Only lenderd knows whether this machine can measure energy"),
        (
            {"energy_measured": False, "energy_method": "not measurable"},
            "This machine can't measure energy now: nothing would run under this grant",
        ),
        (
            {"energy_measured": True, "energy_method": "estimate: 6 W per core"},
            "Energy is measured here now (estimate: 6 W per core)",
        ),
    ],
)
def test_a_budget_in_kwh_is_not_promised_where_energy_cannot_be_measured(
    machine: Machine, told: dict[str, object] | None, said: str
) -> None:
    if told is not None:
        machine.daemon(status={"machine": told})
    done = machine.lender("grant", ALICE, *RENDER, "--budget", "0.5kWh/day", "--yes")
    assert done.returncode == 0
    assert said in done.stdout
    measured = bool(told and told.get("energy_measured"))
    assert ("watts_per_core" in done.stdout, "cpuh/day" in done.stdout) == (not measured,) * 2
    assert "at most 0.5 kWh a day, nothing while energy can't" in machine.lender("grants").stdout
    done = machine.lender("grant", BOB, *RENDER, "--budget", "1cpuh/day", "--yes")
    assert "energy" not in done.stdout.lower()


@pytest.mark.parametrize(("typed", "grants"), [("y", 1), ("yes", 1), ("", 0), ("n", 0), ("x", 0)])
def test_in_a_terminal_only_a_yes_grants(machine: Machine, typed: str, grants: int) -> None:
    code = answer(machine, typed, "grant", ALICE, *RENDER)
    assert code == (0 if grants else 1)
    assert len(read_consent(machine.state).grants) == grants


def test_a_script_has_to_say_that_the_owner_agrees(machine: Machine) -> None:
    done = machine.lender("grant", ALICE, *RENDER)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert read_consent(machine.state).grants == ()


@pytest.mark.parametrize(
    "arguments",
    [
        ("*", *RENDER),
        ("all", *RENDER),
        (ALICE[:-1], *RENDER),
        (ALICE[:-1] + ("A" if ALICE[-1] != "A" else "B"), *RENDER),
        ("S" + ALICE, *RENDER),
        (f"two words={ALICE}", *RENDER),
        (ALICE, "--workload", "render"),
        (ALICE, "--workload", "*", "--expires", "30d"),
        (ALICE, "--workload", "render@", "--expires", "30d"),
        (ALICE, "--workload", "render@abc", "--expires", "30d"),
        (ALICE, "--workload", "render", "--expires", "never"),
        (ALICE, "--workload", "render", "--expires", "0d"),
        (ALICE, "--workload", "render", "--expires", "2001-01-01"),
        (ALICE, "--workload", "render", "--expires", "99999d"),
        (ALICE, *RENDER, "--cpu", "0"),
        (ALICE, *RENDER, "--mem", "1"),
        (ALICE, *RENDER, "--mem", "much"),
        (ALICE, *RENDER, "--vram", "0"),
        (ALICE, *RENDER, "--net", "full"),
        (ALICE, *RENDER, "--when", "sometimes"),
        (ALICE, *RENDER, "--budget", "much"),
        (ALICE, *RENDER, "--budget", "1GB/day", "--budget", "2GB/day"),
    ],
)
def test_what_is_no_grant_is_refused(machine: Machine, arguments: tuple[str, ...]) -> None:
    done = machine.lender("grant", *arguments, "--yes")
    assert done.returncode == 2, done.stdout
    assert read_consent(machine.state).grants == ()


def test_a_name_means_one_key_for_good(machine: Machine) -> None:
    machine.lender("grant", f"alice={ALICE}", *RENDER, "--yes")
    assert machine.lender("grant", "alice", "--class", "checksum", "--expires", "1d", "--yes")
    assert {g.submitter for g in read_consent(machine.state).grants} == {ALICE}
    done = machine.lender("grant", f"alice={BOB}", *RENDER, "--yes")
    assert done.returncode == 2
    assert "alice already means" in done.stderr


def test_a_date_includes_that_day(machine: Machine) -> None:
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() + 5 * 86_400))
    machine.lender("grant", ALICE, "--workload", "render", "--expires", day, "--yes")
    (grant,) = read_consent(machine.state).grants
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(grant.not_after))
    assert local == f"{day} 23:59:59"


def test_lenderd_is_told_and_lends(machine: Machine) -> None:
    machine.daemon()
    done = machine.lender("grant", f"alice={ALICE}", *RENDER, "--yes")
    assert "lenderd gave no answer" not in done.stdout
    assert machine.lender("status", "--check").returncode == 0


def test_a_stranger_grants_nothing(machine: Machine) -> None:
    done = machine.lender_as_stranger("grant", ALICE, *RENDER, "--yes")
    assert done.returncode == 4
    assert read_consent(machine.state).grants == ()

"""`lender grant`: says what is allowed, asks, and writes exactly that."""

import hashlib
import os
import pty
import subprocess
import time

import pytest
from owner_machine import ALICE, BOB, LENDER, Machine, machine

from lender.daemon.consent_files import read_consent

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
    code, told = machine.json(
        "grant", f"alice={ALICE}", "--workload", f"render@sha256:{digest}", "--cpu", "4",
        "--mem", "2G", "--expires", "30d", "--yes",
    )  # fmt: skip
    assert (code, told["schema"]) == (0, "lender.grant/1")
    assert "4 cores and 2 GiB of memory" in told["text"]
    assert "no network, none of your files" in told["text"]
    (grant,) = read_consent(machine.state).valid(time.time())
    assert (grant.submitter, grant.workload, grant.digest) == (ALICE, "render", digest)
    assert (grant.cpu, grant.memory_bytes) == (4, 2 << 30)
    assert grant.not_after - time.time() == pytest.approx(30 * 86_400, abs=60)
    content = (machine.state.grants / f"{grant.id}.toml").read_text()
    assert hashlib.sha256(told["text"].encode()).hexdigest() in content
    assert f"granted_by_uid = {os.getuid()}" in content


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

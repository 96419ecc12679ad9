"""`lender completion`: the scripts in real shells, with the names of this machine's grants."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from owner_machine import ALICE, BOB, LENDER, Machine, grant, machine

from lender.core.consent import Grant
from lender.state.grant_writing import write_grant

__all__ = ["machine"]

BASH = """
source "$SCRIPT"
COMP_LINE=$TYPED COMP_POINT=${#TYPED}
complete -p lender | grep -q -- '-F _lender' || echo not registered
_lender
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed_in_bash(machine: Machine, script: Path, typed: str) -> list[str]:
    environment = {
        "PATH": f"{LENDER.parent}:/usr/bin:/bin",
        "LENDER_STATE": str(machine.state.path),
        "SCRIPT": str(script),
        "TYPED": typed,
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH], env=environment, capture_output=True, text=True,
        timeout=90, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def completed_in_fish(machine: Machine, script: Path, typed: str) -> list[str]:
    environment = {
        "PATH": f"{LENDER.parent}:/usr/bin:/bin",
        "LENDER_STATE": str(machine.state.path),
        "HOME": str(machine.state.path.parent),
    }
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'"],
        env=environment, capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


Completed = Callable[[str], list[str]]


@pytest.fixture(params=["bash", "fish"])
def completed(machine: Machine, tmp_path: Path, request: pytest.FixtureRequest) -> Completed:
    """What the shell offers for a line typed so far."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} is installed")
    script = tmp_path / "script"
    script.write_text(machine.lender("completion", shell).stdout)
    inside = {"bash": completed_in_bash, "fish": completed_in_fish}[shell]
    return lambda typed: inside(machine, script, typed)


def test_verbs(completed: Completed) -> None:
    assert set(completed("lender re")) == {"resume", "retry", "revoke"}
    assert {"status", "pause", "why", "top", "drain", "submit"} <= set(completed("lender "))


def test_options_of_the_verb(completed: Completed) -> None:
    assert set(completed("lender pause --f")) == {"--for", "--finish"}
    assert "--watch" in completed("lender status --")
    assert "--watch" not in completed("lender pause --")


def test_names_of_this_machines_grants(machine: Machine, completed: Completed) -> None:
    agreed = grant(machine.state, "G-1")
    grant(machine.state, "G-2", BOB)
    lab = Grant("G-3", ALICE, "wasm", None, 1, 1 << 20, agreed.not_after, agreed.granted_at)
    write_grant(machine.state, lab, "shown", "alice@lab")
    machine.lender("revoke", "--grant", "G-2")
    assert set(completed("lender revoke --grant ")) == {"G-1", "G-3"}
    assert "bob" not in completed("lender revoke --submitter ")
    assert completed("lender revoke --submitter al") == ["alice@lab"]
    assert "alice@lab" in completed("lender why al")


def test_bash_splits_words_at_signs_that_names_may_hold(machine: Machine, tmp_path: Path) -> None:
    agreed = grant(machine.state, "G-2", BOB)
    lab = Grant("G-3", ALICE, "wasm", None, 1, 1 << 20, agreed.not_after, agreed.granted_at)
    write_grant(machine.state, lab, "shown", "alice@lab")
    script = tmp_path / "script"
    script.write_text(machine.lender("completion", "bash").stdout)
    # Readline replaces only what stands behind the @.
    assert completed_in_bash(machine, script, "lender revoke --submitter alice@l") == ["lab"]


def test_zsh_takes_the_script(machine: Machine, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh is installed")
    script = tmp_path / "_lender"
    script.write_text(machine.lender("completion", "zsh").stdout)
    told = """
    compdef() { print -- "registered $1" }
    compadd() { shift; print -l -- "$@" }
    _describe() { print -l -- "${(@)${(P)2}%%:*}" }
    source $1
    CURRENT=2 words=(lender re); _lender
    CURRENT=4 words=(lender revoke --grant ""); _lender
    CURRENT=3 words=(lender pause ""); _lender
    """
    grant(machine.state, "G-1")
    done = subprocess.run(
        ["zsh", "-f", "-c", told, "zsh", str(script)],
        env={"PATH": f"{LENDER.parent}:/usr/bin:/bin", "LENDER_STATE": str(machine.state.path)},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    words = done.stdout.split()
    assert words[:2] == ["registered", "_lender"]
    assert {"status", "revoke", "G-1", "--until"} <= set(words)


def test_a_stranger_and_a_machine_without_lender_get_no_names(
    machine: Machine, tmp_path: Path
) -> None:
    done = machine.lender("completion", "grants", "--state", str(tmp_path / "none"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

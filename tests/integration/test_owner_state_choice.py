"""A verb acts on the lenderd that is alive, wherever its folder is, and says which one that was."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from owner_machine import AS_STRANGER, BOUND_S, STRANGER_UID, Machine, grant

from lender.sandbox.processes import tree
from lender.state.consent_files import load_consent, read_intent

LISTENER = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
sys.stdin.read()
"""


class Home:
    """A user's home with lenderds in it; no verb is told where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.usual = path / "usual" / "lender"
        self.config = path / "config" / "lender" / "lenderd.toml"
        self._machines: list[Machine] = []

    @property
    def alone(self) -> str:
        """Keeps a verb to lenderds below this home: the machine may have real ones."""
        return (
            "import os, sys\n"
            "import lender.cli.state_choice as choice\n"
            "listed = choice._listed\n"
            f"home = {str(self.path)!r}\n"
            "choice._listed = lambda text: [p for p in listed(text) if p.startswith(home)]\n"
            "choice.SYSTEM_STATE = home + '/system'\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "LENDER" not in name}
        return kept | {
            "HOME": str(self.path),
            "XDG_STATE_HOME": str(self.usual.parent),
            "XDG_CONFIG_HOME": str(self.config.parent.parent),
        }

    def machine(self, path: Path) -> Machine:
        made = Machine(path)
        self._machines.append(made)
        return made

    def lender(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb as an ordinary user would: root's usual folder is the machine's own."""
        code = (
            self.alone
            + "from lender.cli.main import main\n"
            + f"choice.default_state_path = lambda: {str(self.usual)!r}\n"
            + "sys.exit(main(sys.argv[1:]))\n"
        )
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )

    def close(self) -> None:
        for machine in self._machines:
            machine.close()


@pytest.fixture
def home(open_folder: Path) -> Iterator[Home]:
    made = Home(open_folder)
    yield made
    made.close()


def test_the_folder_that_lenderd_serves_is_found_without_being_named(home: Home) -> None:
    served = home.machine(home.path / "else where" / "state")
    record = served.attempt("one", grant(served.state, "G-1"))
    served.daemon()
    done = home.lender("pause")
    assert done.returncode == 0, done.stderr
    assert "of 1 job stand still" in done.stdout
    assert all(tree.stopped(member) for member in tree.members(record.roots))
    assert read_intent(served.state).paused


def test_an_old_folder_hides_no_living_lenderd(home: Home) -> None:
    old = home.machine(home.usual)
    grant(old.state, "G-old")
    served = home.machine(home.path / "system")
    record = served.attempt("one", grant(served.state, "G-1"))
    served.daemon()
    done = home.lender("revoke", "--all")
    assert done.returncode == 0, done.stderr
    assert not tree.members(record.roots)
    assert load_consent(served.state).consent.revoked == {"G-1"}
    assert not load_consent(old.state).consent.revoked


def test_of_two_living_ones_the_verb_says_which_it_meant_and_names_the_other(home: Home) -> None:
    usual, other = home.machine(home.usual), home.machine(home.path / "the other")
    usual.daemon()
    other.daemon()
    done = home.lender("pause")
    assert done.returncode == 0
    assert read_intent(usual.state).paused
    assert not read_intent(other.state).paused
    assert f"This is about {usual.state.path}." in done.stderr
    assert f"add --state '{other.state.path}'" in done.stderr
    assert home.lender("pause", "--state", str(other.state.path)).returncode == 0
    assert read_intent(other.state).paused


@pytest.mark.parametrize("how", ["file", "environment"])
def test_without_a_living_one_it_is_the_folder_that_lenderd_would_serve(
    home: Home, how: str
) -> None:
    home.machine(home.usual)
    told = home.machine(home.path / "told")
    home.config.parent.mkdir(parents=True)
    home.config.write_text(f"state = {json.dumps(str(told.state.path))}" if how == "file" else "")
    more = {"LENDERD_STATE": str(told.state.path)} if how == "environment" else {}
    assert home.lender("pause", **more).returncode == 0
    assert read_intent(told.state).paused


def test_a_named_dead_folder_is_obeyed_with_a_word_on_the_living_one(home: Home) -> None:
    dead, served = home.machine(home.path / "dead"), home.machine(home.path / "served")
    served.daemon()
    done = home.lender("pause", "--state", str(dead.state.path))
    assert done.returncode == 0
    assert "where no lenderd runs" in done.stderr
    assert f"add --state {served.state.path}" in done.stderr
    assert not read_intent(served.state).paused


def test_a_lenderd_without_its_socket_file_is_not_called_dead(home: Home) -> None:
    served = home.machine(home.usual)
    served.daemon()
    served.state.control_socket.unlink()
    done = home.lender("pause")
    assert done.returncode == 0
    assert "lenderd does not run" not in done.stdout
    assert str(served.state.control_socket) in done.stdout
    assert home.lender("status").returncode == 5


def foreign(stranger: Path) -> "subprocess.Popen[bytes]":
    """A socket like a lenderd's, in a folder of another user."""
    stranger.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(stranger / "control.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    os.chown(stranger, STRANGER_UID, STRANGER_UID)
    return process


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_another_users_socket_is_named_and_never_chosen(home: Home) -> None:
    own = home.machine(home.usual)
    grant(own.state, "G-1")
    with foreign(home.path / "a-stranger") as stranger:
        revoked = home.lender("revoke", "--all")
        paused = home.lender("pause")
        stranger.kill()
    assert revoked.returncode == 0
    assert load_consent(own.state).consent.revoked == {"G-1"}
    assert "a-stranger" in revoked.stderr
    # No green word while another lenderd may be the one that was meant.
    assert paused.returncode == 5
    assert "✓" not in paused.stdout
    assert f"add --state {home.path / 'a-stranger'}" in paused.stderr
    assert read_intent(own.state).paused


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another user needs root")
def test_beside_a_lenderd_of_ours_other_users_are_not_mentioned(home: Home) -> None:
    home.machine(home.usual).daemon()
    with foreign(home.path / "a-stranger") as stranger:
        done = home.lender("pause")
        stranger.kill()
    assert (done.returncode, done.stderr) == (0, "")


def pause_as_stranger(home: Home) -> "subprocess.CompletedProcess[str]":
    """As a user who has no state folder."""
    bare = AS_STRANGER.replace("[sys.argv[3], *sys.argv[1:3], *sys.argv[4:]]", "sys.argv[1:]")
    code = home.alone + bare
    return subprocess.run(
        [sys.executable, "-c", code, "pause"],
        env=home.environment | {"HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def test_a_user_without_a_lender_pauses_that_of_another(home: Home) -> None:
    served = home.machine(home.path / "served")
    served.daemon()
    done = pause_as_stranger(home)
    assert done.returncode == 0, done.stderr
    assert read_intent(served.state).paused


def test_a_lenderd_below_a_private_home_is_named_to_others(home: Home) -> None:
    served = home.machine(home.path / "private" / "state")
    served.daemon()
    (home.path / "private").chmod(0o700)
    done = pause_as_stranger(home)
    assert done.returncode == 5
    assert f"root can): add --state {served.state.path}" in done.stderr
    assert not read_intent(served.state).paused

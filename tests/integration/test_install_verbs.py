"""`lender install` and `lender uninstall` as typed, beside a systemctl that only takes notes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lender.cli import state_choice
from lender.cli.exits import CommandError
from lender.cli.installing import carrying_out, host
from lender.cli.installing.carrying_out import carry_out
from lender.cli.installing.plan import Plan, Run
from lender.cli.main import main
from lender.state.folder import StateFolder, write_pid

# Tells of the service what was last ordered of it.
SYSTEMCTL = """#!/bin/sh
echo "$@" >>{folder}/ran
if [ "$1" = is-enabled ]; then cat {folder}/machines 2>/dev/null; exit; fi
case "$2" in
  is-enabled) cat {folder}/enabled 2>/dev/null ;;
  is-active) cat {folder}/active 2>/dev/null ;;
  enable) echo enabled >{folder}/enabled ;;
  start|restart) echo active >{folder}/active; date +@%s >{folder}/started ;;
  show) cat {folder}/started 2>/dev/null ;;
  disable) rm -f {folder}/enabled {folder}/active ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(SYSTEMCTL.format(folder=tools))
    (tools / "systemctl").chmod(0o755)
    tool(tmp_path, "lender", "exit 1")
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(host, "manager", lambda: "systemd")
    monkeypatch.setattr(host, "check_who", lambda *_: None)
    return tmp_path


def changed(home: Path) -> list[str]:
    """What was asked for that is no question."""
    ran = (home / "tools" / "ran").read_text().splitlines()
    lines = [line.removeprefix("--user ") for line in ran]
    return [line for line in lines if not line.startswith(("is-", "show ", "print "))]


def test_it_says_what_it_will_do_does_it_once_and_undoes_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = home / "config" / "systemd" / "user"
    assert main(["install", "--dry-run"]) == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert (units.exists(), changed(home)) == (False, [])

    assert main(["install"]) == 0
    said = capsys.readouterr().out
    assert said.index(f"→ write {units}/lenderd.service") < said.index("✓ write")
    assert "✓ run systemctl --user start lenderd.service" in said
    assert "until you agree: lender grant" in said
    assert not (home / "state").exists(), "nothing is granted, and nobody enrolled"
    before = changed(home)

    assert main(["install"]) == 0
    assert "it is so already" in capsys.readouterr().out
    assert changed(home) == before

    grants = home / "state" / "lender" / "grants"
    grants.mkdir(parents=True)
    (grants / "G-1.toml").write_text("")
    assert main(["uninstall"]) == 0
    assert f"{grants.parent} stays" in capsys.readouterr().out
    assert not list(units.iterdir())
    assert "disable --now lenderd.service" in changed(home)
    assert (grants / "G-1.toml").exists()


def test_what_ran_before_an_upgrade_is_started_anew(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install"]) == 0
    (home / "tools" / "started").write_text("@1000000000\n")
    assert main(["install"]) == 0
    assert "✓ run systemctl --user restart lenderd.service" in capsys.readouterr().out
    assert main(["install"]) == 0
    assert "it is so already" in capsys.readouterr().out


def test_who_was_cut_off_before_a_new_unit_ran_types_it_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install"]) == 0
    unit = home / "config/systemd/user/lenderd.service"
    unit.write_text(f"{unit.read_text()}# mine\n")
    works = (home / "tools/systemctl").read_text()
    (home / "tools/systemctl").write_text(works.replace("start|restart)", "restart) exit 1 ;; x)"))
    assert main(["install", "--replace"]) == 1
    (home / "tools/systemctl").write_text(works)
    (home / "tools/started").write_text(f"@{unit.stat().st_ctime - 5:.0f}\n")
    assert main(["install"]) == 0
    assert "✓ run systemctl --user restart lenderd.service" in capsys.readouterr().out
    (unit.parent / ".lenderd.service.new").write_text("half a uni")
    assert main(["uninstall"]) == 0
    assert f"{unit}.kept stays" in capsys.readouterr().out
    assert [one.name for one in unit.parent.iterdir()] == ["lenderd.service.kept"]


def test_what_is_still_being_stopped_is_waited_for(home: Path) -> None:
    (home / "tools" / "active").write_text("deactivating\n")
    assert main(["uninstall"]) == 0
    assert "disable --now lenderd.service" in changed(home)


def test_on_a_mac_what_is_older_than_its_file_or_does_not_run_is_started_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "manager", lambda: "launchd")
    monkeypatch.setenv("HOME", str(home))
    tool(home, "launchctl", 'echo "$@" >>ran; [ $1 != print ] || cat told')
    assert main(["install"]) == 0
    agent = home / "Library/LaunchAgents/lender.lenderd.plist"
    anew = [
        f"bootout gui/{os.getuid()}/lender.lenderd",
        f"enable gui/{os.getuid()}/lender.lenderd",
        f"bootstrap gui/{os.getuid()} {agent}",
    ]
    assert changed(home) == anew[1:]
    newer = subprocess.Popen(["sleep", "600"])
    try:
        for runs, done in ((os.getpid(), anew), (None, anew), (newer.pid, [])):
            line = "" if runs is None else f"\tpid = {runs}\n"
            (home / "tools/told").write_text(f"lender.lenderd = {{\n\tactive count = 1\n{line}}}\n")
            (home / "tools/ran").unlink()
            assert main(["install"]) == 0
            assert changed(home) == done
    finally:
        newer.kill()
        newer.wait()
    assert "it is so already" in capsys.readouterr().out
    agent.with_name(".lender.lenderd.plist.new").write_text("half")
    assert main(["uninstall"]) == 0
    assert not list(agent.parent.iterdir())


def test_another_lenderd_of_this_machine_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = StateFolder(home / "machines")
    other.create()
    monkeypatch.setattr(state_choice, "SYSTEM_STATE", str(other.path))
    with write_pid(other):
        assert main(["install"]) == 0
    said = capsys.readouterr().out
    assert f"counts the same cores as spare: {other.path}" in said
    assert "lender install --agent" in said


def test_who_undoes_a_service_of_their_own_is_told_of_the_machines(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["uninstall"]) == 0
    assert "--system" not in capsys.readouterr().out
    (home / "tools" / "machines").write_text("enabled\n")
    assert main(["uninstall"]) == 0
    assert "! lenderd as a service of this machine stays: sudo lender uninstall --system" in (
        capsys.readouterr().out
    )
    assert changed(home) == []


def test_a_verb_that_lacks_a_library_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "lender.cli.doctor", raising=False)
    monkeypatch.setitem(sys.modules, "lender.cli.checks", None)
    assert main(["doctor"]) == 1
    assert (
        "is missing: lender was not installed whole; mend: install it again"
        in capsys.readouterr().err
    )


def tool(home: Path, name: str, script: str) -> None:
    path = home / "tools" / name
    path.write_text(f"#!/bin/sh\ncd {home}/tools\n{script}\n")
    path.chmod(0o755)


def test_a_service_that_does_not_start_says_why(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool(home, "systemctl", 'case "$2" in start) echo "Job failed." >&2; exit 1 ;; esac')
    tool(home, "journalctl", 'echo "$@" >asked; printf "lenderd: can\'t read it\033[2J\n"')
    assert main(["install"]) == 1
    said = capsys.readouterr().err
    assert (
        "systemctl --user start lenderd.service: Job failed. It said: lenderd: can't read" in said
    )
    assert "\033" not in said
    asked = (home / "tools" / "asked").read_text().split()
    assert (asked[0], asked[-4:]) == ("--user", ["-u", "lenderd.service", "-t", "lenderd"])


def test_who_has_no_lender_on_the_path_is_told_where_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "tools" / "lender").unlink()
    monkeypatch.setenv("PATH", f"{home}/tools:/usr/bin:/bin")
    if shutil.which("lender"):
        pytest.skip("this machine has a lender of its own in /usr/bin")
    assert main(["install"]) == 0
    assert f"until you agree: {sys.executable.rpartition('/')[0]}/lender grant" in (
        capsys.readouterr().out
    )


def test_what_launchd_refuses_while_the_old_one_ends_is_tried_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(home, "launchctl", "echo again >>tries; [ $(wc -l <tries) -ge 3 ]")
    monkeypatch.setattr(carrying_out, "_AGAIN_S", 0.01)
    done: list[str] = []
    carry_out(Plan((Run(("launchctl", "bootstrap"), within_s=30),)), done.append)
    assert done == ["✓ run launchctl bootstrap"]
    (home / "tools" / "tries").unlink()
    with pytest.raises(CommandError):
        carry_out(Plan((Run(("launchctl", "bootstrap")),)), done.append)


def test_purge_deletes_the_state_folder_once_its_owner_says_yes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = home / "state" / "lender"
    (state / "grants").mkdir(parents=True)
    monkeypatch.setattr("sys.stdin.readline", lambda: "\n")
    assert main(["uninstall", "--purge"]) == 1
    assert state.exists()
    assert main(["uninstall", "--purge", "--yes", "--json"]) == 0
    assert not state.exists()
    assert '"do": "wipe"' in capsys.readouterr().out
    assert main(["uninstall", "--broker", "--purge", "--yes"]) == 2, "a fleet's keys"


def test_a_lenderd_that_was_started_by_hand_is_to_end_first(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = StateFolder(home / "state" / "lender")
    state.create()
    with write_pid(state):
        assert main(["install"]) == 1
    assert f"serves {state.path}: end it first" in capsys.readouterr().err
    assert changed(home) == []

"""`lender-broker`: settings, submitters, and what it says when something is wrong."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from broker_command import broker_command
from broker_parts import ALICE, COMMAND, MALLORY

from broker.core.intake.quotas import DEFAULT
from broker.service.clock import Clock
from broker.service.main import main
from broker.service.settings import BrokerSettings, default_state
from broker.service.submitters import SubmittersError, SubmittersFile
from lender.service.settings import SettingsError, load


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if arguments[0] != "serve" and not environment:
        return broker_command(*arguments)
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, **environment},
    )


def keys(state: Path) -> dict[str, str]:
    return {name: one.key for name, one in SubmittersFile(state).read().by_name.items()}


def test_help_shows_examples() -> None:
    said = run("--help")
    assert said.returncode == 0
    assert "lender-broker serve --embedded" in said.stdout


def test_an_unknown_setting_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text("embeded = true\n")
    said = run("serve", "--config", str(config))
    assert said.returncode == 2
    assert "did you mean 'embedded'" in said.stderr
    assert "Traceback" not in said.stderr


def test_submitters_are_allowed_and_forbidden(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    assert run("allow", "alice", ALICE.public_key, *state).returncode == 0
    assert run("allow", "mallory", MALLORY.public_key, *state).returncode == 0
    assert run("forbid", "mallory", *state).returncode == 0
    assert keys(tmp_path / "state") == {"alice": ALICE.public_key}


def test_sizes_and_durations_are_said_as_to_the_other_commands(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))
    said = run("allow", "alice", ALICE.public_key, "--stored", "1.5G", "--bytes", "64M", *state)
    assert said.returncode == 0
    alice = SubmittersFile(tmp_path).read().by_name["alice"]
    assert (alice.stored_bytes_max, alice.bytes_max) == (3 << 29, 64 << 20)
    for arguments, says in (
        (("allow", "alice", "--stored", "much"), "write 512M or 2G"),
        (("token", "--expires", "31d"), "at most 30d"),
        (("token", "--expires", "soon"), "write 90s, 5m, 2h or 1d"),
    ):
        said = run(*arguments, *state)
        assert said.returncode == 2
        assert says in said.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("allow", "alice", "UABC"), "lender keygen"),
        (("allow", "a b", ALICE.public_key), "is no name"),
        (("allow", "bob", "--weight", "2"), "name its public key"),
        (("allow", "default", ALICE.public_key), "stands for all others"),
        (("allow", "alice", ALICE.public_key, "--running=-1"), "running_tasks_max"),
        (("allow", "alice", ALICE.public_key, "--weight", "0"), "weight"),
        (("allow", "alice", ALICE.public_key, "--stored", "1"), "stored_bytes_max"),
        (("forbid", "bob"), "was never allowed"),
    ],
)
def test_mistakes_say_how_to_mend_them(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    said = run(*arguments, "--state", str(tmp_path))
    assert said.returncode == 1
    assert says in said.stderr
    assert "Traceback" not in said.stderr


def test_a_store_in_use_is_told(tmp_path: Path) -> None:
    said = run("serve", "--embedded", "--store", "/proc/nowhere", "--state", str(tmp_path))
    assert said.returncode == 1
    assert said.stderr.startswith("lender-broker: ")
    assert "Traceback" not in said.stderr


def test_a_broken_table_is_told_and_left_alone(tmp_path: Path) -> None:
    file = SubmittersFile(tmp_path)
    for text in (
        "alice = ",
        'alice = "UABC"',
        "alice = 3",
        "[alice]\nweight = 2",
        f'[default]\nkey = "{ALICE.public_key}"',
        "[default]\njobs = 3",
        'default = "UABC"',
    ):
        file.path.write_text(text)
        with pytest.raises(SubmittersError, match="submitters"):
            file.read()
        with pytest.raises(SubmittersError):
            file.allow("bob", ALICE.public_key)
        assert file.path.read_text() == text


def test_what_is_said_of_a_submitter_stays_until_something_else_is(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))
    assert run("allow", "alice", ALICE.public_key, "--weight", "2", *state).returncode == 0
    assert run("allow", "alice", "--running", "100", *state).returncode == 0
    assert run("allow", "default", "--jobs", "10", "--running", "5", *state).returncode == 0
    assert run("allow", "mallory", MALLORY.public_key, *state).returncode == 0
    told = SubmittersFile(tmp_path).read().event([])
    assert told.submitters == {ALICE.public_key, MALLORY.public_key}
    assert told.weights == {ALICE.public_key: 2.0, MALLORY.public_key: 1.0}
    assert told.quotas == {
        ALICE.public_key: DEFAULT._replace(jobs_max=10, running_tasks_max=100),
        MALLORY.public_key: DEFAULT._replace(jobs_max=10, running_tasks_max=5),
    }
    listed = run("submitters", *state).stdout.splitlines()
    assert [line.split()[:5] for line in listed] == [
        ["NAME", "WEIGHT", "JOBS", "TASKS", "RUNNING"],
        ["[default]", "(1)", "10", f"({DEFAULT.tasks_max})", "5"],
        ["alice", "2", "(10)", f"({DEFAULT.tasks_max})", "100"],
        ["mallory", "(1)", "(10)", f"({DEFAULT.tasks_max})", "(5)"],
    ]
    assert run("allow", "default", "--stored", str(1 << 30), *state).returncode == 0
    assert run("allow", "alice", "--stored", str(1 << 40), *state).returncode == 0
    assert SubmittersFile(tmp_path).read().stored_bytes_max(["UX"]) == {
        "UX": 1 << 30,
        ALICE.public_key: 1 << 40,
        MALLORY.public_key: 1 << 30,
    }
    assert run("forbid", "alice", *state).returncode == 0
    assert keys(tmp_path) == {"mallory": MALLORY.public_key}
    assert SubmittersFile(tmp_path).read().default.jobs_max == 10


def test_a_file_of_keys_alone_is_read_and_others_settings_are_listed(tmp_path: Path) -> None:
    (tmp_path / "submitters.toml").write_text(f'alice = "{ALICE.public_key}"\n')
    config = tmp_path / "broker.toml"
    config.write_text(f'[submitters]\nmallory = "{MALLORY.public_key}"\n')
    listed = run("submitters", "--state", str(tmp_path), "--config", str(config)).stdout
    assert listed.count("no limit") == 6
    assert {line.split()[-1] for line in listed.splitlines()[2:]} == {
        ALICE.public_key,
        MALLORY.public_key,
    }
    told = SubmittersFile(tmp_path).read().event([MALLORY.public_key])
    assert told.submitters == {ALICE.public_key, MALLORY.public_key}
    assert set(told.quotas.values()) == {DEFAULT}


def test_a_change_of_the_table_is_noticed_once(tmp_path: Path) -> None:
    file = SubmittersFile(tmp_path)
    assert file.changed()
    assert not file.changed()
    SubmittersFile(tmp_path).allow("alice", ALICE.public_key)
    assert file.changed()
    assert not file.changed()
    assert file.path.stat().st_mode & 0o077 == 0


def test_settings_name_submitters_by_their_keys(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(f'[submitters]\nalice = "{ALICE.public_key}"\n')
    assert load(BrokerSettings, config, {}, {}).submitters == {"alice": ALICE.public_key}
    config.write_text('[submitters]\nalice = "U"\n')
    with pytest.raises(SettingsError, match="alice"):
        load(BrokerSettings, config, {}, {})
    with pytest.raises(SettingsError, match="must be debug"):
        load(BrokerSettings, None, {"log_level": "loud"}, {})


def test_the_state_lies_where_the_desktop_keeps_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_state() == Path("/somewhere/lender-broker")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state().parts[-3:] == (".local", "state", "lender-broker")


def test_without_a_home_the_state_folder_is_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert main(["submitters"]) == 2
    assert "set HOME, or name the state folder with --state" in capsys.readouterr().err
    assert main(["submitters", "--state", str(tmp_path)]) == 0


def test_the_clock_follows_jumps_of_the_wall_clock_and_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    assert clock.jump() == 0.0
    before = clock.now()

    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 100.0)
    assert clock.now() < before + 50
    assert clock.jump() == pytest.approx(100.0, abs=1.0)
    assert clock.now() > before + 99
    assert clock.jump() == 0.0

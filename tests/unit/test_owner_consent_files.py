"""Consent on disk fails closed: whatever can't be trusted allows nothing."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lender.core.consent import Consent, Grant, Intent
from lender.daemon import consent_files
from lender.daemon.consent_files import (
    load_consent,
    read_consent,
    read_intent,
    withdraw_grants,
    write_grant,
    write_intent,
    write_tombstones,
)
from lender.daemon.state import StateFolder
from lender.protocol import ids

NOW = 1_800_000_000.25
GRANT = Grant("G-1", "U" + "A" * 55, "render", "ab" * 32, 4, 2 << 30, NOW + 3600, NOW)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def test_a_grant_is_read_as_it_was_written(state: StateFolder) -> None:
    plain = replace(GRANT, id="G-2", digest=None)
    write_grant(state, GRANT, "shown", "alice@lab", granted_by_uid=7)
    write_grant(state, plain, "shown")
    reading = load_consent(state)
    assert reading.consent == Consent((GRANT, plain))
    assert reading.names == {GRANT.submitter: "alice@lab"}
    assert reading.ignored == ()
    assert (state.grants / "G-1.toml").stat().st_mode & 0o777 == 0o600


def test_an_id_is_never_taken_twice(state: StateFolder) -> None:
    write_grant(state, GRANT, "shown")
    with pytest.raises(FileExistsError):
        write_grant(state, GRANT, "shown")


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../G-1"},
        {"submitter": "*"},
        {"workload": "*"},
        {"digest": "short"},
        {"cpu": 0},
        {"memory_bytes": 0},
        {"not_after": float("inf")},
        {"not_after": 1e18},
    ],
)
def test_what_would_not_be_read_is_not_written(
    state: StateFolder, wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        write_grant(state, replace(GRANT, **wrong), "shown")  # type: ignore[arg-type]
    assert list(state.grants.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("cpu = 4", 'cpu = "4"', "limits.cpu is no positive whole number"),
        ("cpu = 4", "cpu = true", "limits.cpu is no positive whole number"),
        ("cpu = 4", "cpu = -1", "limits.cpu is no positive whole number"),
        ("cpu = 4\n", "", "limits are exactly"),
        ("cpu = 4", "cpu = 4\ngpu = 1", "limits are exactly"),
        ("[limits]", 'when = "away"\n[limits]', "unknown key 'when'"),
        ("granted_by_uid = 0\n", "", "lacks 'granted_by_uid'"),
        ("granted_by_uid = 0", "granted_by_uid = 0.5", "granted_by_uid is no int"),
        ('workload = "render"', 'workload = "*"', "workload has not the form"),
        ('submitter = "U', 'submitter = "S', "submitter has not the form"),
        ("25Z", "25", "has no time zone"),
        ("# Ends", "= Ends", "is not TOML"),
        ('id = "G-1"', 'id = "G-2"', "its name should be G-2.toml"),
    ],
)
def test_a_faulty_grant_counts_as_absent_and_is_told(
    state: StateFolder, old: str, new: str, reason: str
) -> None:
    path = write_grant(state, GRANT, "shown", granted_by_uid=0)
    content = path.read_text().replace("250000Z", "25Z")
    assert old in content
    path.write_text(content.replace(old, new))
    reading = load_consent(state)
    assert reading.consent.grants == ()
    assert reason in reading.ignored[0].reason


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_grant_that_others_can_write_counts_as_absent(state: StateFolder, mode: int) -> None:
    write_grant(state, GRANT, "shown").chmod(mode)
    reading = load_consent(state)
    assert reading.consent.grants == ()
    assert "can be written by others" in reading.ignored[0].reason


def test_a_folder_that_others_can_write_holds_no_consent(state: StateFolder) -> None:
    write_grant(state, GRANT, "shown")
    state.grants.chmod(0o777)
    reading = load_consent(state)
    assert reading.consent.grants == ()
    assert "its folder can be written by others" in reading.ignored[0].reason


def test_links_pipes_folders_and_huge_files_are_no_grants(
    state: StateFolder, tmp_path: Path
) -> None:

    elsewhere = tmp_path / "elsewhere.toml"
    write_grant(state, GRANT, "shown").rename(elsewhere)
    (state.grants / "G-1.toml").symlink_to(elsewhere)
    (state.grants / "G-2.toml").mkdir(mode=0o700)
    os.mkfifo(state.grants / "G-3.toml", 0o600)
    (state.grants / "G-4.toml").write_bytes(b"#" * 100_000)
    (state.grants / "G-5.toml").write_bytes(b"\xff\xfe")
    (state.grants / "G-4.toml").chmod(0o600)
    reading = load_consent(state)
    assert reading.consent.grants == ()
    assert len(reading.ignored) == 5


def test_half_written_files_do_not_count(state: StateFolder) -> None:
    (state.grants / ".G-1.toml.99.new").write_text("half")
    (state.tombstones / ".G-1.99.new").write_text("half")
    assert load_consent(state).ignored == ()


def test_a_tombstone_counts_by_its_name_alone(state: StateFolder) -> None:
    write_grant(state, GRANT, "shown")
    write_grant(state, replace(GRANT, id="G-2"), "shown")
    state.tombstone("G-1").touch()
    assert [g.id for g in read_consent(state).valid(NOW)] == ["G-2"]
    write_tombstones(state, ["G-2"], NOW)
    assert read_consent(state).valid(NOW) == ()


@pytest.mark.parametrize("fault", ["strange name", "no folder", "a file"])
def test_unreadable_tombstones_withdraw_everything(state: StateFolder, fault: str) -> None:
    write_grant(state, GRANT, "shown")
    if fault == "strange name":
        (state.tombstones / "strange name").touch()
    else:
        state.tombstones.rmdir()
    if fault == "a file":
        state.tombstones.touch()
    reading = load_consent(state)
    assert reading.consent.valid(NOW) == ()
    assert reading.ban
    assert reading.ignored


def test_grants_can_be_set_aside_without_a_tombstone(state: StateFolder) -> None:
    write_grant(state, GRANT, "shown")
    assert withdraw_grants(state, ["G-1", "G-9"]) == ("G-1",)
    assert load_consent(state).consent == Consent()


def test_an_empty_state_allows_nothing_and_complains_of_nothing(tmp_path: Path) -> None:
    reading = load_consent(StateFolder(tmp_path / "nowhere"))
    assert reading.consent == Consent()
    assert reading.ignored == ()
    assert read_intent(StateFolder(tmp_path / "nowhere")) == Intent()


def test_the_intent_is_read_as_it_was_written(state: StateFolder) -> None:
    for intent in (Intent(paused=True, paused_at=NOW), Intent()):
        write_intent(state, intent)
        assert read_intent(state) == intent


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"paused": false}', '{"paused": "no", "paused_at": 0}', "null"],
)
def test_an_unreadable_intent_counts_as_a_pause(state: StateFolder, content: str) -> None:
    state.intent.write_text(content)
    assert read_intent(state).paused


def test_the_forms_are_those_of_the_wire() -> None:
    assert f"^{consent_files.SUBMITTER_PATTERN}$" == ids.PUBLIC_KEY_PATTERN
    assert f"^{consent_files.WORKLOAD_PATTERN}$" == ids.WORKLOAD_PATTERN
    assert f"^{consent_files.SHA256_PATTERN}$" == ids.SHA256_PATTERN
    assert re.fullmatch(consent_files.GRANT_ID_PATTERN, "..") is None

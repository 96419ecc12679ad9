"""Consent on disk fails closed: whatever can't be trusted allows nothing."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lender.core.budget import parse_budget
from lender.core.consent import Consent, Grant, Intent
from lender.core.schedule import parse_when
from lender.protocol import ids
from lender.state import grant_file
from lender.state.consent_files import (
    load_consent,
    read_consent,
    read_intent,
    sync_tombstones,
    withdraw_grants,
    write_intent,
    write_tombstones,
)
from lender.state.folder import StateFolder
from lender.state.grant_writing import write_grant

NOW = 1_800_000_000.25
GRANT = Grant("G-1", "U" + "A" * 55, "render", "ab" * 32, 4, 2 << 30, NOW + 3600, NOW)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def test_a_grant_is_read_as_it_was_written(state: StateFolder) -> None:
    plain = replace(GRANT, id="G-2", digest=None)
    full = replace(
        GRANT,
        id="G-3",
        vram_bytes=4 << 30,
        when=parse_when("Mon-Fri 18:00-08:00, Sat-Sun"),
        budget=parse_budget(["5GB/week", "0.1kWh/day", "10cpuh/day"]),
    )
    write_grant(state, GRANT, "shown", "alice@lab", granted_by_uid=7)
    write_grant(state, plain, "shown")
    write_grant(state, full, "shown")
    reading = load_consent(state)
    assert reading.consent == Consent((GRANT, plain, full))
    assert reading.names == {GRANT.submitter: "alice@lab"}
    assert reading.ignored == ()
    assert (state.grants / "G-1.toml").stat().st_mode & 0o777 == 0o600


def test_a_file_of_the_first_version_means_what_was_agreed_to_then(state: StateFolder) -> None:
    path = state.grants / "G-1.toml"
    path.write_text(
        f"""id = "G-1"
submitter = "{GRANT.submitter}"
workload = "render"
digest = "{GRANT.digest}"
not_after = 2027-01-15T09:00:00.250000Z
granted_at = 2027-01-15T08:00:00.250000Z
granted_by_uid = 0
text_shown_sha256 = "00"

[limits]
cpu = 4
memory_bytes = 2147483648
"""
    )
    path.chmod(0o600)
    reading = load_consent(state)
    assert reading.ignored == ()
    (grant,) = reading.consent.grants
    assert grant == GRANT
    assert grant.when.holds("present", 0)
    assert (grant.vram_bytes, grant.budget) == (0, ())


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
        ("cpu = 4", 'cpu = "4"', "limits.cpu is no whole number"),
        ("cpu = 4", "cpu = true", "limits.cpu is no whole number"),
        ("cpu = 4", "cpu = -1", "limits.cpu is no whole number"),
        ("cpu = 4", "cpu = 0", "limits.cpu is no whole number"),
        ("cpu = 4", "cpu = 4.0", "limits.cpu is no whole number"),
        ("cpu = 4", f"cpu = {'9' * 400}", "limits.cpu is no whole number"),
        ("cpu = 4", f"cpu = {'9' * 5000}", "is not TOML"),
        ("cpu = 4", f"cpu = {'[' * 5000}", "is not TOML"),
        ("cpu = 4\n", "", "lacks 'limits.cpu'"),
        ("cpu = 4", "cpu = 4\ncores = 1", "unknown key 'limits.cores'"),
        ("vram_bytes = 0", "vram_bytes = -1", "limits.vram_bytes is no whole number"),
        (
            "[limits]\nvram_bytes = 0\ncpu = 4\nmemory_bytes = 2147483648",
            "limits = 4",
            "is no dict",
        ),
        ('when = "always"', 'when = "sometimes"', "when: 'sometimes'"),
        ('when = "always"', "when = 5", "when is no str"),
        ('when = "always"', 'when = "away"\nwhen = "always"', "is not TOML"),
        ('net = "none"', 'net = "full"', "net: 'full' is neither internet"),
        ("[limits]", "[budget]\ncpu_s_per_month = 1\n[limits]", "'budget.cpu_s_per_month'"),
        ("[limits]", "[budget]\ncpu_s_per_day = 0\n[limits]", "budget.cpu_s_per_day is no"),
        ("[limits]", "[budget]\ncpu_s_per_day = nan\n[limits]", "budget.cpu_s_per_day is no"),
        ("[limits]", "[budget]\ncpu_s_per_day = inf\n[limits]", "budget.cpu_s_per_day is no"),
        ("[limits]", "[budget]\ncpu_s_per_day = true\n[limits]", "budget.cpu_s_per_day is no"),
        ("[limits]", "purpose = 1\n[limits]", "unknown key 'purpose'"),
        ("granted_by_uid = 0\n", "", "lacks 'granted_by_uid'"),
        ("granted_by_uid = 0", "granted_by_uid = 0.5", "granted_by_uid is no int"),
        ('workload = "render"', 'workload = "*"', "workload has not the form"),
        ('submitter = "U', 'submitter = "S', "submitter has not the form"),
        ("25Z", "25", "has no time zone"),
        ("not_after = 2027-01-15T09:00:00.25Z", "not_after = 2027-01-15", "not_after is no"),
        ("not_after = 2027-01-15T09:00:00.25Z", "", "lacks 'not_after'"),
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


def test_a_clock_far_away_neither_breaks_nor_prolongs(state: StateFolder) -> None:
    path = write_grant(state, GRANT, "shown")
    content = path.read_text()
    start = "not_after = "
    line = next(one for one in content.splitlines() if one.startswith(start))
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        path.write_text(content.replace(line, start + moment))
        reading = load_consent(state)
        held = reading.consent.valid(NOW)
        assert len(held) == (1 if moment.startswith("9") else 0)
    path.write_text(content)
    assert read_consent(state).valid(GRANT.not_after) == ()


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
    sync_tombstones(state, ["G-1", "G-2"])
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
    assert f"^{grant_file.SUBMITTER_PATTERN}$" == ids.PUBLIC_KEY_PATTERN
    assert f"^{grant_file.WORKLOAD_PATTERN}$" == ids.WORKLOAD_PATTERN
    assert f"^{grant_file.SHA256_PATTERN}$" == ids.SHA256_PATTERN
    assert re.fullmatch(grant_file.GRANT_ID_PATTERN, "..") is None

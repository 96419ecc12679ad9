"""The stored intent: both of its forms read, and a pause is what anything else means."""

from pathlib import Path

import pytest

from lender.core.consent import Intent
from lender.state.consent_files import read_intent
from lender.state.folder import StateFolder
from lender.state.intent_file import StoredIntent, read_stored, write_stored

ENDLESS = (True, None, None)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def test_it_has_the_fields_of_the_cores_intent_in_its_order() -> None:
    assert StoredIntent._fields == tuple(Intent.__slots__)


@pytest.mark.parametrize(
    "said",
    [
        StoredIntent(),
        StoredIntent(paused=True, paused_at=5.0),
        StoredIntent(paused=True, paused_at=5.0, until=7205.25),
        StoredIntent(paused=True, paused_at=5.0, until=None, finish_by=605.0),
        StoredIntent(paused=True, paused_at=5.0, said_by=1001),
    ],
)
def test_what_was_said_is_read_again(state: StateFolder, said: StoredIntent) -> None:
    write_stored(state, said)
    assert read_stored(state) == said
    assert read_intent(state) == Intent(*said)
    assert [said.holds(now) for now in (6.0, 7206.0)] == [
        Intent(*said).holds(now) for now in (6.0, 7206.0)
    ]


@pytest.mark.parametrize("paused", [True, False])
def test_the_form_without_ends_reads(state: StateFolder, *, paused: bool) -> None:
    state.intent.write_text(f'{{"v": 1, "paused": {str(paused).lower()}, "paused_at": 12.5}}')
    assert read_stored(state) == StoredIntent(paused, 12.5)


@pytest.mark.parametrize(
    "content",
    [
        '{"v": 2, "paused": false, "paused_at": 0}',
        '{"v": 1, "paused": false, "paused_at": 0, "until": "tomorrow"}',
        '{"v": 1, "paused": true, "paused_at": 0, "until": NaN}',
        '{"v": 1, "paused": true, "paused_at": 0, "until": true}',
        '{"v": 1, "paused": true, "paused_at": 0, "finish_by": []}',
        '{"v": 1, "paused": true, "paused_at": 0, "finish_by": 1' + "0" * 400 + "}",
        '{"v": 1, "paused": 0, "paused_at": 0}',
        '{"v": 1, "paused": false, "paused_at": 0, "said_by": "root"}',
        '{"v": 1, "paused": false, "paused_at": 0, "said_by": true}',
        '{"v": 1, "paused": false, "paused_at": 0, "said_by": -1}',
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_what_cannot_be_read_is_an_endless_pause(state: StateFolder, content: str) -> None:
    state.intent.write_text(content)
    stored = read_stored(state)
    assert (stored.paused, stored.until, stored.finish_by) == ENDLESS


def test_a_file_that_cannot_be_opened_is_an_endless_pause(state: StateFolder) -> None:
    state.intent.mkdir()
    assert read_stored(state).paused

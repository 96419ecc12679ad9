"""No decoder is left out: whoever adds one adds a target, or says where its bytes come from."""

from fuzz import calls
from fuzz.table import NOT_FROM_OUTSIDE, TARGETS
from fuzz.target import CORPUS


def test_every_place_that_takes_bytes_apart_is_a_targets_or_reads_nothing_from_outside() -> None:
    covered = {place for target in TARGETS.values() for place in target.reads}
    assert not covered & NOT_FROM_OUTSIDE.keys()
    assert calls.found() == covered | NOT_FROM_OUTSIDE.keys()


def test_every_folder_of_the_corpus_is_a_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


def test_every_reason_is_one() -> None:
    assert all(len(reason) > 20 for reason in NOT_FROM_OUTSIDE.values())

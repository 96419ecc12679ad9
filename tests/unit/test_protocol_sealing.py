"""What is sealed is read by those it was sealed to, whole and as what it is, or not at all."""

import base64
import io

import nkeys
import pytest
from core_world import ALICE, BOB, LENDER
from hypothesis import given
from hypothesis import strategies as st

from lender.protocol.bounds import STDERR_TAIL_BYTES_MAX
from lender.protocol.errors import ProtocolError
from lender.protocol.result import TaskResult
from lender.protocol.sealing import (
    KEY_BYTES,
    PIECE_BYTES,
    SEALED_TAIL_BYTES_MAX,
    SealBrokenError,
    open_key,
    opened_pieces,
    purpose,
    seal,
    seal_key,
    seal_words,
    sealed_pieces,
    sealed_size,
    unseal,
    unseal_result,
)

KEY, OTHER = bytes(range(KEY_BYTES)), bytes(KEY_BYTES)
INPUT = purpose("input", "data.csv")


def test_a_jobs_key_is_opened_by_whom_it_is_sealed_to_alone() -> None:
    sealed = seal_key(KEY, ALICE.public_key)
    assert open_key(sealed, ALICE) == KEY
    assert seal_key(KEY, ALICE.public_key) != sealed  # who has both learns nothing
    with pytest.raises(SealBrokenError, match="not sealed to this one"):
        open_key(sealed, BOB)


@pytest.mark.parametrize("sealed", ["", "A", "A" * 107, "é" * 107, "*" * 107])
def test_a_key_that_is_none_is_refused(sealed: str) -> None:
    with pytest.raises(SealBrokenError):
        open_key(sealed, ALICE)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(SealBrokenError, match="32 bytes"):
        open_key(seal_key(KEY[1:], ALICE.public_key), ALICE)


def test_nothing_is_sealed_to_a_key_that_nobody_can_have_made() -> None:
    with pytest.raises(ProtocolError):
        seal_key(KEY, LENDER[:-1] + "A")
    raw = bytes([20 << 3]) + bytes(32)  # a point of small order, with nkeys' prefix of a user
    checksum: int = nkeys.crc16(bytearray(raw))
    small = base64.b32encode(raw + checksum.to_bytes(2, "little")).decode()
    with pytest.raises(ProtocolError, match="nothing can be sealed"):
        seal_key(KEY, small)


EDGES = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]


@pytest.mark.parametrize("size", EDGES)
def test_a_content_of_any_size_comes_back(size: int) -> None:
    content = bytes(size)
    sealed = seal(KEY, INPUT, content)
    assert len(sealed) == sealed_size(size)
    assert unseal(KEY, INPUT, sealed) == content
    assert seal(KEY, INPUT, content) != sealed


def test_pieces_are_read_and_given_one_by_one() -> None:
    sealed = list(sealed_pieces(KEY, INPUT, io.BytesIO(bytes(3 * PIECE_BYTES))))
    assert len(sealed) == 4
    opened = opened_pieces(KEY, INPUT, io.BytesIO(b"".join(sealed)))
    assert [len(piece) for piece in opened] == [PIECE_BYTES] * 3


@given(st.binary(max_size=300), st.data())
def test_whatever_is_changed_is_noticed(content: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, INPUT, content))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBrokenError):
        unseal(KEY, INPUT, bytes(sealed))


@pytest.mark.parametrize("size", EDGES)
def test_what_is_cut_short_or_goes_on_is_noticed(size: int) -> None:
    sealed = seal(KEY, INPUT, bytes(size))
    cuts = {0, 1, 23, 24, 30, len(sealed) - 1, len(sealed) - PIECE_BYTES - 17}
    for cut in cuts:
        with pytest.raises(SealBrokenError):
            unseal(KEY, INPUT, sealed[: max(0, cut)])
    with pytest.raises(SealBrokenError):
        unseal(KEY, INPUT, sealed + b"\0")


def test_pieces_in_another_order_are_noticed() -> None:
    header, first, second, third = sealed_pieces(KEY, INPUT, io.BytesIO(bytes(3 * PIECE_BYTES)))
    with pytest.raises(SealBrokenError):
        unseal(KEY, INPUT, header + second + first + third)


@pytest.mark.parametrize(
    ("key", "bound_to"),
    [(OTHER, INPUT), (KEY, purpose("input", "data.tsv")), (KEY, purpose("output", "data.csv"))],
)
def test_nothing_passes_for_something_else(key: bytes, bound_to: bytes) -> None:
    with pytest.raises(SealBrokenError, match="another key or for another purpose"):
        unseal(key, bound_to, seal(KEY, INPUT, b"content"))


def test_no_two_purposes_are_written_alike() -> None:
    assert purpose("output", 1, "1") != purpose("output", 11)
    assert purpose("value", 1) != purpose("words", 1)


def sealed_result(task: int = 3, error: str | None = None, tail: bytes = b"") -> TaskResult:
    return TaskResult(
        task=task,
        state="failed",
        value=seal(KEY, purpose("value", task), b"42"),
        stderr_tail=seal_words(KEY, task, error, tail),
    )


def test_a_result_is_opened_with_all_that_its_task_said() -> None:
    opened = unseal_result(KEY, sealed_result(error="ValueError: secret", tail=b"secret\n"))
    assert (opened.value, opened.error, opened.stderr_tail) == (
        b"42",
        "ValueError: secret",
        b"secret\n",
    )
    assert unseal_result(KEY, sealed_result()).error is None


def test_what_a_task_said_always_fits_into_a_result() -> None:
    tail = bytes(range(256)) * 40
    opened = unseal_result(KEY, sealed_result(error="\U0010ffff" * 2000, tail=tail))
    assert opened.stderr_tail == tail[-SEALED_TAIL_BYTES_MAX:]
    assert opened.error == "\U0010ffff" * 500
    assert len(seal_words(KEY, 3, "\U0010ffff" * 2000, tail)) <= STDERR_TAIL_BYTES_MAX


def test_the_brokers_own_words_are_no_seal() -> None:
    verdict = TaskResult(task=3, state="failed", error="its lender went away")
    assert unseal_result(KEY, verdict) == verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"value": b"plain"},
        {"value": seal(KEY, purpose("value", 4), b"of another task")},
        {"stderr_tail": b"plain"},
        {"stderr_tail": seal_words(KEY, 4, None, b"of another task")},
        *(
            {"stderr_tail": seal(KEY, purpose("words", 3), no_pair)}
            for no_pair in (b"", b"\xc1", b"\x01", b"\x92\x01\xc4\x00", b"\x92\xc0\xa0", b"\x90")
        ),
    ],
)
def test_a_result_of_whoever_lacks_the_key_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SealBrokenError):
        unseal_result(KEY, sealed_result().model_copy(update=changes))

"""How durations, sizes and keys are worded; and which keys are keys."""

import os
import random

import pytest

from lender.cli import words
from lender.cli.submitter_key import is_public_key
from lender.protocol.signature import Signer, seed_from_entropy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0006, "0.6 ms"),
        (14.25, "14.2 s"),
        (372, "6m12s"),
        (11_100, "3h05m"),
        (190_000, "2d 4h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (512, "512 bytes"),
        (1 << 30, "1 GiB"),
        (1.1 * (1 << 30), "1.1 GiB"),
        (1 << 54, "16384.0 TiB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert words.size(count) == text


def test_counts() -> None:
    assert [words.count(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert words.count(8, "process") == "8 processes"


def test_what_could_steer_a_terminal_is_taken_out() -> None:
    assert words.printable("a\x1b[31m\u202eb\n") == "a?[31m?b?"


def test_every_key_that_nkeys_makes_is_a_key_and_no_typo_is() -> None:
    chance = random.Random(7)
    for _ in range(50):
        key = Signer(seed_from_entropy(os.urandom(32))).public_key
        assert is_public_key(key)
        place = chance.randrange(1, 56)
        other = chance.choice([c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" if c != key[place]])
        assert not is_public_key(key[:place] + other + key[place + 1 :])
    for text in ("", "U", "U" + "A" * 54, "u" + "a" * 55, "U" + "1" * 55):
        assert not is_public_key(text)

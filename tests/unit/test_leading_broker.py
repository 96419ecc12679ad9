"""What `lender preflight` makes of the word that a broker has left: who understands whom."""

import json

import pytest

from lender.cli.checks.broker import leading_checks
from lender.link.errors import StrangeAnswerError
from lender.link.server_words import leading_of
from lender.protocol.version import PROTOCOL


@pytest.mark.parametrize(
    ("word", "level", "mend"),
    [
        (None, "warning", "lender-broker serve"),
        ({"broker": None, "protocol": PROTOCOL}, "warning", "lender-broker serve"),
        ({"broker": "x"}, "warning", "its operator upgrades"),
        ({"broker": "x", "protocol": PROTOCOL, "version": "0.1"}, "ok", ""),
        ({"broker": "x", "protocol": PROTOCOL + 1}, "blocker", "pip install --upgrade lender"),
        ({"broker": "x", "protocol": PROTOCOL - 1}, "blocker", "its operator upgrades"),
    ],
)
def test_each_version_has_its_mend(word: dict[str, object] | None, level: str, mend: str) -> None:
    leading = None if word is None else leading_of(json.dumps(word).encode())
    (found,) = leading_checks(leading)
    assert (found.level, mend in found.mend) == (level, True)


@pytest.mark.parametrize(
    "word", [b"", b"{}", b'{"broker": 7}', b'{"broker": "x", "protocol": "1"}']
)
def test_what_is_no_such_word_is_told(word: bytes) -> None:
    with pytest.raises(StrangeAnswerError):
        leading_of(word)

"""What the house says: read with suspicion, forgotten in time, and held against conditions."""

import json

import pytest
from core_world import GIB, START

from lender.core.comfort import Comfort
from lender.core.conditions import (
    SIGNAL_BYTES_MAX,
    OutsideWatch,
    SignalFault,
    Source,
    decode_signal,
    unmet,
)
from lender.core.policy import Condition, Limits, Policy, Rung, Threshold
from lender.core.signals import OutsideReading, Presence, Signals

PRICE = Condition("price", below=Threshold(0.3, 0.25))
SURPLUS = Condition("surplus", above=Threshold(500, 800))
OUT = Condition("presence", equals=("not_home", "away"))


@pytest.mark.parametrize(
    ("payload", "key", "value"),
    [
        (b"0.31", "", 0.31),
        (b" -2.5e-1\n", "", -0.25),
        (b".5", "", 0.5),
        (b"12.", "", 12.0),
        (b'{"now": {"eur": 0.31}}', "now.eur", 0.31),
        (b'{"now": "0.31"}', "now", 0.31),
        (b'{"hours": [7, {"p": 8}]}', "hours.1.p", 8.0),
        (b"[1, 2]", "0", 1.0),
    ],
)
def test_numbers_are_read(payload: bytes, key: str, value: float) -> None:
    assert decode_signal(payload, key, numeric=True) == value


@pytest.mark.parametrize(
    ("payload", "key", "value"),
    [
        (b" not_home\n", "", "not_home"),
        (b'{"in": true}', "in", "true"),
        (b'{"in": 1.5}', "in", "1.5"),
        (b"zu Hause", "", "zu Hause"),
    ],
)
def test_texts_are_read(payload: bytes, key: str, value: str) -> None:
    assert decode_signal(payload, key, numeric=False) == value


@pytest.mark.parametrize(
    ("payload", "key", "why"),
    [
        (b"x" * (SIGNAL_BYTES_MAX + 1), "", "over 16384 bytes"),
        (b"\xff\xfe", "", "not UTF-8"),
        (b"nan", "", "no finite number"),
        (b"inf", "", "no finite number"),
        (b"1_000", "", "no finite number"),
        (b"9e999", "", "no finite number"),
        (b"", "", "no finite number"),
        (b"unavailable", "", "no finite number"),
        (b'{"a": NaN}', "a", "no JSON"),
        (b'{"a": -Infinity}', "a", "no JSON"),
        (b'{"a": true}', "a", "no finite number"),
        (b'{"a": null}', "a", "no finite number"),
        (b'{"a": {}}', "a", "no finite number"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a", "no finite number"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "a", "no JSON"),
        (b'{"a": ', "a", "no JSON"),
        (b"[" * 16_000, "0", "no JSON"),
        (b'{"b": 1}', "a", "has no a"),
        (b"[1]", "1", "has no 1"),
        (b"[1]", "-1", "has no -1"),
        (b"3", "a", "has no a"),
    ],
)
def test_what_is_no_number_is_a_fault(payload: bytes, key: str, why: str) -> None:
    with pytest.raises(SignalFault, match=why):
        decode_signal(payload, key, numeric=True)


@pytest.mark.parametrize("value", ["x" * 65, "a\nb", "\x1b[2J", [], None])
def test_what_is_no_short_text_is_a_fault(value: object) -> None:
    with pytest.raises(SignalFault, match="no text"):
        decode_signal(json.dumps({"a": value}).encode(), "a", numeric=False)


# What is known, and for how long.


def watch() -> OutsideWatch:
    return OutsideWatch([Source("price", "", numeric=True, expires_s=60)])


def known(one: OutsideWatch, now: float) -> float | str | None:
    (reading,) = one.read(now)
    assert (reading.value is None) == bool(reading.fault)
    return reading.value


def test_nothing_is_known_before_the_first_word() -> None:
    (reading,) = watch().read(START)
    assert reading == OutsideReading("price", None, "nothing was heard of it yet")


def test_a_word_counts_until_it_expires() -> None:
    one = watch()
    one.heard(START, "price", b"0.2", retained=False)
    assert (known(one, START + 60), known(one, START + 61)) == (0.2, None)
    assert one.read(START + 61)[0].fault == "nothing new for 60 s"
    one.heard(START + 70, "price", b"0.2", retained=False)
    assert known(one, START + 120) == 0.2


def test_a_word_that_cant_be_read_takes_the_one_before_away() -> None:
    one = watch()
    one.heard(START, "price", b"0.2", retained=False)
    one.heard(START + 1, "price", b"unavailable", retained=False)
    assert one.read(START + 2)[0].fault == "what came can't be read: it is no finite number"


def test_a_retained_word_is_not_renewed_by_a_reconnect() -> None:
    one = watch()
    one.heard(START, "price", b"0.2", retained=True)
    one.heard(START + 50, "price", b"0.2", retained=True)
    assert (known(one, START + 50), known(one, START + 61)) == (0.2, None)
    one.heard(START + 70, "price", b"0.1", retained=True)
    assert known(one, START + 71) == 0.1


# Conditions.


def said(condition: Condition, value: float | str | None, *, back: bool = False) -> str:
    reading = OutsideReading(condition.name, value, "" if value is not None else "unheard")
    finding = unmet(condition, reading, back=back)
    if finding is None:
        return ""
    assert (finding.rung, finding.cores, finding.bars) == (Rung.FROZEN, 0.0, "")
    assert finding.signal == f"mqtt {condition.name}"
    return finding.text


@pytest.mark.parametrize(
    ("condition", "value", "there", "back"),
    [
        (PRICE, 0.3, "", "price: 0.3, lends up to 0.25"),
        (PRICE, 0.31, "price: 0.31, over 0.3", "price: 0.31, lends up to 0.25"),
        (PRICE, 0.25, "", ""),
        (PRICE, -1.0, "", ""),
        (SURPLUS, 500.0, "", "surplus: 500, lends from 800"),
        (SURPLUS, 499.0, "surplus: 499, under 500", "surplus: 499, lends from 800"),
        (SURPLUS, 800.0, "", ""),
        (OUT, "away", "", ""),
        (OUT, "home", *["presence: it is home, lends at not_home or away"] * 2),
        (OUT, None, *["presence: unheard"] * 2),
        (PRICE, None, *["price: unheard"] * 2),
    ],
)
def test_a_condition_that_does_not_hold_says_why(
    condition: Condition, value: float | str | None, there: str, back: str
) -> None:
    assert (said(condition, value), said(condition, value, back=True)) == (there, back)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"below": Threshold(1, 1), "equals": ("x",)},
        {"below": Threshold(1, 2)},
        {"above": Threshold(2, 1)},
    ],
)
def test_a_condition_that_means_nothing_is_refused(fields: dict[str, Threshold]) -> None:
    with pytest.raises(ValueError, match="price: "):
        Condition("price", **fields)  # type: ignore[arg-type]


def reading_of(**fields: object) -> Signals:
    return Signals(0.1, 8 * GIB, presence=Presence(), **fields)  # type: ignore[arg-type]


def test_conditions_hold_lending_back_and_come_back_by_stays() -> None:
    room = Comfort(Policy(Limits(stay_s=5), Limits(stay_s=5)).under((PRICE, OUT)), 4.0)
    cheap, away = OutsideReading("price", 0.2), OutsideReading("presence", "away")
    room.sampled(START, reading_of(outside=(cheap, away)))
    assert room.verdict.rung == Rung.FULL
    room.sampled(START + 1, reading_of(outside=(OutsideReading("price", 0.9), away)))
    assert (room.verdict.rung, room.verdict.reason) == (Rung.FROZEN, "price: 0.9, over 0.3")
    room.sampled(START + 2, reading_of(outside=(cheap, away)))
    assert room.verdict.rung == Rung.FROZEN
    room.sampled(START + 8, reading_of(outside=(cheap, away)))
    assert room.verdict.rung == Rung.REDUCED
    room.sampled(START + 9, reading_of())
    assert {one.text for one in room.verdict.findings} == {
        "price: nothing was heard of it yet",
        "presence: nothing was heard of it yet",
    }


def test_what_the_house_says_of_presence_makes_nobody_absent() -> None:
    sits = Presence(idle_s=1.0, desktop=True)
    room = Comfort(Policy().under((OUT,)), 4.0)
    away = (OutsideReading("presence", "away"),)
    room.sampled(START, Signals(0.1, 8 * GIB, presence=sits, outside=away))
    assert room.verdict.presence == "present"

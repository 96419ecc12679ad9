"""What a function returns comes back the same, and no byte from a lender runs anything here."""

import collections
import enum
import json
import math
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lender.client.errors import ContentFault, UntrustedValue
from lender.client.values import decode
from lender.sandbox.runtimes.python_inside import encode

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
LEAVES |= st.binary()
KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
KEYS |= st.tuples(st.text(), st.integers())
VALUES = st.recursive(
    LEAVES,
    lambda one: (
        st.lists(one)
        | st.dictionaries(KEYS, one)
        | st.lists(one).map(tuple)
        | st.dictionaries(st.text(), one)
    ),
    max_leaves=20,
)


def same(one: object, other: object) -> bool:
    """Equal and of the same types: 1, 1.0 and True are not the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return same([*one.items()], [*other.items()])
    return one == other


@given(VALUES)
def test_plain_data_comes_back_as_it_was_without_a_pickle(value: object) -> None:
    content = encode(value)
    assert content[:1] in (b"b", b"j")
    assert same(decode(content), value)


@pytest.mark.parametrize(
    "value",
    [
        math.inf,
        -math.inf,
        -0.0,
        pytest.param(10**4000, id="large"),
        {"t": [1]},
        {"p": b""},
        [[{}]],
        "\ud800",
        ((),),
    ],
)
def test_the_odd_ones_come_back_too(value: object) -> None:
    found = decode(encode(value))
    assert same(found, value)
    assert str(found) == str(value)


def test_an_int_of_more_digits_than_python_writes_comes_back_too() -> None:
    value = {-(10**5000): [1, (10**5000, b"")], 7: [10**5000, 8]}
    content = encode(value)
    assert content[:1] == b"j"
    assert same(decode(content), value)


def test_what_is_nested_deeply_comes_back_too() -> None:
    value: list[object] = []
    for _ in range(700):
        value = [value]
    assert encode(decode(encode(value))) == encode(value)


def test_what_is_no_number_stays_none() -> None:
    assert math.isnan(decode(encode([math.nan]))[0])


class Colour(enum.IntEnum):
    RED = 1


def cycle() -> list[object]:
    made: list[object] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        {1, 2},
        Path("x"),
        collections.OrderedDict(a=1),
        [Colour.RED],
        1j,
    ],
)
def test_all_else_is_a_pickle_for_those_who_trust(value: object) -> None:
    content = encode(value)
    assert content[:1] == b"p"
    assert same(decode(content, trust=True), value)
    with pytest.raises(UntrustedValue, match="trust=True"):
        decode(content)


def test_a_list_within_itself_is_a_pickle() -> None:
    assert encode(cycle())[:1] == b"p"


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", [b"p", b"j", b"b", b"", b"P", b"x"])
def test_a_malicious_pickle_is_never_opened_unasked(tmp_path: Path, kind: bytes) -> None:
    attack = pickle.dumps(Attack(tmp_path / "owned"))
    for content in (kind + attack, attack, kind):
        try:
            decode(content)
        except (UntrustedValue, ContentFault):
            continue
        assert kind == b"b"
    assert not (tmp_path / "owned").exists()
    decode(b"p" + attack, trust=True)
    assert (tmp_path / "owned").exists(), "the attack would have worked"


@pytest.mark.parametrize(
    "tree",
    [
        {"x": 1},
        {},
        {"t": [], "d": {}},
        {"t": 1},
        {"b": "*"},
        {"b": "YQ"},
        {"d": []},
        {"m": [[1]]},
        {"m": [[[], 1]]},
        {"m": 3},
    ],
)
def test_a_tree_that_breaks_the_rules_is_refused(tree: object) -> None:
    with pytest.raises(ContentFault, match="can't be read"):
        decode(b"j" + json.dumps(tree).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(content: bytes) -> None:
    for kind in (b"j", b"b", b""):
        try:
            decode(kind + content)
        except (ContentFault, UntrustedValue):
            continue


def test_a_tree_too_deep_to_read_is_refused() -> None:
    with pytest.raises(ContentFault):
        decode(b"j" + b"[" * 100_000 + b"]" * 100_000)


def test_keys_that_a_liar_chose_to_collide_are_no_value() -> None:
    # As a dict these took minutes, and a value of the largest size a day.
    numbers = [i * ((1 << 61) - 1) for i in range(1, 60_000)]
    for keys in (numbers, [{"t": [one]} for one in numbers]):
        content = b"j" + json.dumps({"m": [[key, 0] for key in keys]}).encode()
        with pytest.raises(ContentFault, match="chosen to collide"):
            decode(content)
    honest = {-1: "a", -2: "b", 1.5: "c", (1, 2): "d", **dict.fromkeys(range(1000), "e")}
    assert decode(encode(honest)) == honest

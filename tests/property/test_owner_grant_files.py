"""Whatever happens to a grant file, it allows what the owner agreed to, or nothing."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lender.core.budget import Bound, Measure, Period
from lender.core.consent import Grant
from lender.core.schedule import Hours, When
from lender.protocol.devices import KNOWN, devices_of
from lender.state.grant_file import GrantFaultError, encode_grant, read_grant

few_examples = settings(max_examples=80)

NOW = 1_800_000_000.25
GRANT = Grant(
    "G-1", "U" + "A" * 55, "render", "ab" * 32, 4, 2 << 30, NOW + 3600, NOW, 1 << 30,
    When("hours", (Hours(0, 4, 64_800, 28_800),)), (Bound("cpu_s", 36_000.0, "day"),),
)  # fmt: skip
CONTENT = encode_grant(GRANT, "shown", "alice", 0)

measures: tuple[Measure, ...] = ("cpu_s", "moved_bytes", "energy_wh")
periods: tuple[Period, ...] = ("day", "week")
whens = st.one_of(
    st.sampled_from([When("always"), When("idle"), When("away")]),
    st.lists(
        st.builds(Hours, st.integers(0, 6), st.integers(0, 6), st.just(3600), st.just(7200)),
        min_size=1, max_size=4,
    ).map(lambda hours: When("hours", tuple(hours))),
)  # fmt: skip
budgets = st.dictionaries(
    st.tuples(st.sampled_from(measures), st.sampled_from(periods)), st.floats(1e-6, 1e20)
).map(lambda bounds: tuple(Bound(m, amount, per) for (m, per), amount in bounds.items()))


def read(content: bytes, name: str = "G-1.toml") -> Grant:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        path.chmod(0o600)
        return read_grant(path)[0]


@few_examples
@given(
    st.integers(1, 4096), st.integers(1, 1 << 50), st.integers(0, 1 << 50), whens, budgets,
    st.integers(1, 230_000_000_000),
    st.lists(
        st.sampled_from(["internet", "a.org", "*.b-c.org", "d.example.org:8443"]), unique=True
    ),
    st.lists(st.sampled_from(sorted(KNOWN)), unique=True),
)  # fmt: skip
def test_every_grant_is_read_as_it_was_written(
    cpu: int, memory_bytes: int, vram_bytes: int, when: When, budget: tuple[Bound, ...], ends: int,
    net: list[str], devices: list[str],
) -> None:  # fmt: skip
    grant = replace(
        GRANT, cpu=cpu, memory_bytes=memory_bytes, vram_bytes=vram_bytes, when=when,
        budget=budget, not_after=NOW + ends, net=tuple(net), devices=devices_of(devices),
    )  # fmt: skip
    assert read(encode_grant(grant, "shown", "", 0)) == grant


@few_examples
@given(st.integers(0, len(CONTENT)), st.integers(0, 60), st.binary(max_size=20))
def test_a_damaged_file_is_a_grant_of_the_same_id_or_a_fault(
    start: int, cut: int, put: bytes
) -> None:
    damaged = CONTENT[:start] + put + CONTENT[start + cut :]
    try:
        grant = read(damaged)
    except GrantFaultError as error:
        assert str(error)  # noqa: PT017 - either way is right
    else:
        assert grant.id == GRANT.id
        assert grant.cpu > 0
        assert grant.memory_bytes > 0
        assert grant.vram_bytes >= 0
        assert all(bound.amount > 0 for bound in grant.budget)


def test_a_file_that_lost_its_end_is_a_fault_or_allows_no_more() -> None:
    for length in range(len(CONTENT)):
        try:
            grant = read(CONTENT[:length])
        except GrantFaultError:
            continue
        assert replace(grant, memory_bytes=GRANT.memory_bytes) == GRANT
        assert grant.memory_bytes <= GRANT.memory_bytes


@given(st.binary(max_size=200))
def test_anything_else_is_a_fault(content: bytes) -> None:
    with pytest.raises(GrantFaultError):
        read(content)

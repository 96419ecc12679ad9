"""deploy/headscale: who reaches whom in the overlay network."""

import re
from pathlib import Path

import pytest
from overlay_policy import failures, lets, read, unknown_names

FILE = Path(__file__).parents[2] / "deploy" / "headscale" / "policy.hujson"
POLICY = read(FILE.read_text())
TAGS = ("tag:lender", "tag:broker", "tag:submitter", "tag:monitoring")
EVERYBODY = (*TAGS, "operator@", "somebody@")
PORTS = {
    port + beside
    for port in {1, 65_535, *map(int, re.findall(r"\d+", FILE.read_text()))}
    for beside in (-1, 0, 1)
} & set(range(1, 65_536))
"""Both sides of every port that is named: grants are of ranges."""


def ports(source: str, target: str) -> set[int]:
    return {port for port in PORTS if lets(POLICY, source, target, port)}


def test_the_policy_passes_its_own_tests() -> None:
    assert failures(POLICY) == []
    assert not unknown_names(POLICY)
    assert {one["src"] for one in POLICY["tests"]} >= set(TAGS)


def test_nothing_listens_on_lenders() -> None:
    for one in EVERYBODY:
        for target in ("tag:lender", "somebody@"):
            assert ports(one, target) == set(), one


def test_all_that_lenders_and_submitters_reach_is_nats() -> None:
    for one in ("tag:lender", "tag:submitter", "somebody@"):
        assert ports(one, "tag:broker") == {4222}
        assert not any(ports(one, target) for target in TAGS if target != "tag:broker")


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        (
            {"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]},
            "tag:lender -> tag:broker:22 passes",
        ),
        ({"grants": []}, "tag:lender -> tag:broker:4222 refused"),
        (
            {"grants": [{"src": ["tag:lender"], "dst": ["tag:broker"], "ip": ["tcp:4000-9463"]}]},
            "tag:lender -> tag:broker:9463 passes",
        ),
        (
            {"grants": [{"src": ["tag:lender"], "dst": ["tag:broker"], "ip": ["udp:4222"]}]},
            "tag:lender -> tag:broker:4222 refused",
        ),
    ],
)
def test_its_tests_would_notice_another_policy(
    changed: dict[str, list[dict[str, list[str]]]], failing: str
) -> None:
    assert failing in failures({**POLICY, **changed})


def test_a_policy_without_grants_lets_everything_through() -> None:
    without = {name: value for name, value in POLICY.items() if name != "grants"}
    assert "tag:lender -> tag:broker:8222 passes" in failures(without)
    assert lets(read("{}"), "tag:lender", "tag:lender", 22)


def test_a_slip_of_the_pen_is_noticed() -> None:
    grants = [*POLICY["grants"], {"src": ["tag:lendr"], "dst": ["tag:broker"], "ip": ["tcp:4222"]}]
    assert unknown_names({**POLICY, "grants": grants}) == {"tag:lendr"}


def test_comments_and_last_commas_are_read_and_texts_left_alone() -> None:
    text = '{"tests": [ /* none, */ ], "groups": {"group:a": ["//no, comment]",],}, // all\n}'
    assert read(text) == {"tests": [], "groups": {"group:a": ["//no, comment]"]}}
    with pytest.raises(ValueError, match="said twice"):
        read('{"grants": [], "grants": []}')
    with pytest.raises(ValueError, match="not understood"):
        read('{"ssh": []}')
    with pytest.raises(ValueError, match="Expecting"):
        read('{"grants": [,]}')

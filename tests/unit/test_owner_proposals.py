"""A proposal is options of `lender grant` by other means, and none of those that agree."""

from dataclasses import replace

import pytest

from lender.cli.grant import options_of
from lender.cli.proposals import _KINDS, ProposalError, agreed, words
from lender.core.consent import Grant

KEY = "U" + "A" * 55
LEAST = {"submitter": f"alice={KEY}", "workload": "render", "expires": "30d"}
DAY_S = 86_400.0
NOW = 1.8e9
ASKED = Grant("G-1", KEY, "render", None, 1, 1 << 30, NOW + 30 * DAY_S, NOW)


def test_it_says_what_its_owner_would_type() -> None:
    table = {
        **LEAST, "cpu": 4, "mem": "2G", "gpu": True, "net_metered": False,
        "budget": ["10cpuh/day", "5GB/week"], "device": "accel-hailo8",
    }  # fmt: skip
    said = words(table)
    assert said[-2:] == ["--", f"alice={KEY}"]
    assert sorted(said[:-2]) == [
        "--budget=10cpuh/day", "--budget=5GB/week", "--cpu=4", "--device=accel-hailo8",
        "--expires=30d", "--gpu", "--mem=2G", "--workload=render",
    ]  # fmt: skip
    options = options_of(said)
    assert (options.cpu, options.mem, options.gpu, options.yes) == (4, 2 << 30, True, False)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"yes": True}, "unknown key 'yes'"),
        ({"state": "/tmp"}, "unknown key 'state'"),
        ({"replace": True}, "unknown key 'replace'"),
        ({"limit": {"cpu": 1}}, "unknown key 'limit'"),
        ({"cpu": "4"}, "'cpu' is to be int"),
        ({"cpu": True}, "'cpu' is to be int"),
        ({"gpu": 1}, "'gpu' is to be bool"),
        ({"budget": [1]}, "'budget' is to be str or list"),
        ({"mem": ["2G"]}, "'mem' is to be str"),
    ],
)
def test_what_is_not_known_may_restrict_and_is_refused(more: dict[str, object], says: str) -> None:
    with pytest.raises(ProposalError, match=says):
        words({**LEAST, **more})


def test_all_that_a_grant_may_say_can_be_proposed_and_nothing_of_the_asking() -> None:
    known = set(vars(options_of(words(LEAST))))
    asking = {"proposed", "replace", "yes", "json", "state"}
    assert set(_KINDS) == known - asking


@pytest.mark.parametrize("key", LEAST)
def test_who_and_what_and_until_when_are_needed(key: str) -> None:
    table = {name: value for name, value in LEAST.items() if name != key}
    with pytest.raises(ProposalError, match=f"'{key}' is missing"):
        words(table)


@pytest.mark.parametrize(
    "more", [{"submitter": "--yes"}, {"workload": "--yes"}, {"expires": "30d --yes"}, {"cpu": -3}]
)
def test_no_value_becomes_an_option(more: dict[str, object]) -> None:
    try:
        options = options_of(words({**LEAST, **more}))
    except ProposalError:
        return
    assert options.yes is False


def test_a_grant_is_the_proposals_while_both_say_the_same() -> None:
    earlier = replace(ASKED, id="G-7", granted_at=NOW - DAY_S, not_after=NOW + 29 * DAY_S)
    assert agreed(ASKED, "30d", [earlier]) == earlier
    assert agreed(ASKED, "2030-01-01", [earlier]) is None  # as a date it would end another day
    dated = replace(earlier, not_after=ASKED.not_after)
    assert agreed(ASKED, "2030-01-01", [dated]) == dated
    assert agreed(ASKED, "30d", [dated]) is None
    for other in (
        replace(earlier, cpu=2), replace(earlier, digest="ab" * 32), replace(earlier, net=("a.b",)),
        replace(earlier, workload="other"), replace(earlier, not_after=NOW),
    ):  # fmt: skip
        assert agreed(ASKED, "30d", [other]) is None

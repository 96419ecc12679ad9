"""What a server says that one may do, held against the table."""

from collections.abc import Mapping

import pytest
from core_world import ALICE

from lender.protocol import subjects
from lender.protocol.held_rights import Held, difference, nearest_role
from lender.protocol.permissions import HOME, Role, Verb, granted

ME = "UME"
TAGS = ("class:default_wasm_any_none_UA_wasm",)


def held(role: Role) -> Mapping[Verb, Held]:
    return {
        "publish": Held(granted(role, "publish", ME, TAGS)),
        "subscribe": Held(granted(role, "subscribe", ME, TAGS)),
    }


@pytest.mark.parametrize("role", list(HOME))
def test_what_the_table_says_differs_in_nothing(role: Role) -> None:
    assert difference(role, ME, TAGS, held(role)).size == 0
    assert nearest_role(ME, TAGS, held(role)) == role


def test_what_lacks_and_what_is_too_much_is_named() -> None:
    said = dict(held("lender"))
    offer = subjects.offer(ME)
    said["publish"] = Held([*(x for x in said["publish"].allow if x != offer), "work.>"])
    found = difference("lender", ME, TAGS, said)
    assert (found.missing, found.beyond) == ((f"publish {offer}",), ("publish work.>",))
    assert nearest_role(ME, TAGS, said) == "lender"


def test_a_lenders_token_without_its_submitters_is_one_of_an_earlier_version() -> None:
    old = (f"class:default_wasm_any_none_{ALICE.public_key}_wasm",)
    said = {verb: Held(granted("lender", verb, ME, old)) for verb in ("publish", "subscribe")}
    assert [one.split(".")[0] for one in difference("lender", ME, old, said).missing] == [
        "publish out",
        "publish $JS",
        "publish $JS",
    ]


def test_a_denial_beats_what_is_allowed() -> None:
    said = dict(held("lender"))
    said["subscribe"] = Held((">",), (subjects.control(ME),))
    found = difference("lender", ME, TAGS, said)
    assert found.missing == (f"subscribe {subjects.control(ME)}",)
    assert found.beyond == ("subscribe >",)


def test_a_verb_that_is_not_named_is_none() -> None:
    found = difference("observer", ME, (), {})
    assert len(found.missing) == len(granted("observer", "publish", ME)) + len(
        granted("observer", "subscribe", ME)
    )

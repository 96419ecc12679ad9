"""Where on the network work may get to: what is a place, and which place lies in which."""

import pytest
from core_world import make_spec
from pydantic import ValidationError

from lender.protocol.codec import encode
from lender.protocol.job import JobSpec
from lender.protocol.reach import allows, covers, in_words, parse_reach


@pytest.mark.parametrize(
    "text",
    [
        "", "none,internet", "localhost", "*", "*.org", "org", "a.*.org", "*a.org", "a..org",
        "127.0.0.1", "10.1", "0x7f.1", "a.0x7f", "[::1]", "::1", "a.org:", "a.org:0", "a.org:65536",
        "a.org:08", "a.org:1e3", "a.org:-1", "internet:22", "http://a.org", "a.org/", "u@a.org",
        "-a.org", "a-.org", "a_b.org", ".a.org", "ä.org", f"{'a' * 64}.org", f"{'a.' * 130}org",
        ",".join(f"h{n}.org" for n in range(17)), "a.org,,b.org", "a.org b.org",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"internet|hosts"):
        parse_reach(text)


def test_words_become_places_once_and_in_lower_case() -> None:
    assert parse_reach("none") == ()
    assert parse_reach("Internet") == ("internet",)
    said = "A.org, *.b.c.org:8443 ,a.org,xn--bcher-kva.example"
    assert parse_reach(said) == ("a.org", "*.b.c.org:8443", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("allowed", "asked", "covered"),
    [
        ((), (), True),
        ((), ("a.org",), False),
        (("a.org",), (), True),
        (("internet",), ("a.org", "*.b.org", "c.org:443", "internet"), True),
        (("internet",), ("a.org:22",), False),
        (("internet", "a.org:22"), ("a.org:22", "internet"), True),
        (("a.org",), ("internet",), False),
        (("*.a.org",), ("b.a.org", "c.b.a.org", "*.b.a.org", "*.a.org"), True),
        (("*.a.org",), ("a.org",), False),
        (("*.a.org",), ("ba.org",), False),
        (("b.a.org",), ("*.a.org",), False),
        (("a.org",), ("a.org:80",), True),
        (("a.org:443",), ("a.org",), False),
        (("a.org:443", "a.org:80"), ("a.org",), True),
        (("*.a.org:8443",), ("b.a.org:8443",), True),
        (("*.a.org:8443",), ("b.a.org",), False),
    ],
)
def test_a_job_may_ask_for_what_a_grant_allows_and_for_no_more(
    allowed: tuple[str, ...], asked: tuple[str, ...], *, covered: bool
) -> None:
    assert covers(allowed, asked) is covered


def test_addresses_are_reached_by_the_word_internet_only() -> None:
    assert allows(("internet",), "93.184.216.34", 443)
    assert not allows(("internet",), "93.184.216.34", 22)
    assert not allows(("a.org", "*.216.example"), "93.184.216.34", 443)
    assert allows(("a.org:22",), "a.org", 22)


def test_it_is_told_in_words() -> None:
    assert in_words(()) == "no network"
    web = "at ports 80 and 443"
    assert in_words(("a.org", "*.b.org:22")) == f"the network (a.org {web}; *.b.org:22)"
    assert in_words(("b.org:1", "a.org:22")) == "the network (b.org:1, a.org:22)"
    anywhere = f"the network (any public host, a.org {web}; a.org:22)"
    assert in_words(("a.org:22", "a.org", "internet")) == anywhere


def test_who_asks_for_no_network_says_nothing_that_older_readers_refuse() -> None:
    assert "net" not in make_spec().model_dump()["requires"]
    spec = make_spec(runtime="process", argv=("true",), requires={"net": ("a.org",)})
    assert JobSpec.model_validate(spec.model_dump()) == spec
    assert b"a.org" in encode(spec)


@pytest.mark.parametrize("reach", [("none",), ("A.org",), ("a.org",) * 17, ("127.0.0.1",), "a.org"])
def test_a_job_names_well_formed_places(reach: object) -> None:
    with pytest.raises(ValidationError, match=r"requires\.net"):
        make_spec(runtime="process", argv=("true",), requires={"net": reach})


def test_only_process_and_python_jobs_can_have_a_network() -> None:
    with pytest.raises(ValidationError, match=r"requires\.net: a wasm job can't have a network"):
        make_spec(requires={"net": ("a.org",)})

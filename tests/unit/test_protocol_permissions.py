"""The table of permissions: what it grants to whom, and that its document follows it."""

import importlib.util
from pathlib import Path

import pytest

from lender.protocol import permissions, streams, subjects
from lender.protocol.permissions import RIGHTS, SELF, STRANGERS_INBOX, Role, granted, permits

DOCS = Path(__file__).parents[2] / "docs"
ME, OTHER = "UME", "UOTHER"
CLASSES = ("class:default_wasm_any_none_UA_wasm", "class:default_wasm_any_none_UB_wasm", "site:x")


@pytest.mark.parametrize(
    ("pattern", "subject", "passes"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        # A wildcard that is asked for is a token like any other.
        ("a.*", "a.>", True),
        ("a.b", "a.*", False),
    ],
)
def test_patterns_match_as_the_server_has_them(pattern: str, subject: str, *, passes: bool) -> None:
    assert permits([pattern], subject) is passes
    assert permits(["x", pattern], subject) is passes


def test_a_lender_takes_leases_of_its_classes_and_its_own_queue_alone() -> None:
    allowed = granted("lender", "publish", ME, CLASSES)
    pull = "$JS.API.CONSUMER.MSG.NEXT.WORK."
    assert {one for one in allowed if one.startswith(pull)} == {
        f"{pull}default_wasm_any_none_UA_wasm",
        f"{pull}default_wasm_any_none_UB_wasm",
        f"{pull}assign_{ME}",
    }
    assert not any(one.startswith(f"{pull}default") for one in granted("lender", "publish", ME))


@pytest.mark.parametrize("role", ["lender", "submitter", "observer"])
def test_nobody_but_the_broker_reaches_what_is_anothers(role: Role) -> None:
    """What names a person names oneself; what names nobody is listed here, and nothing else is."""
    of_nobody = {
        "$O.blobs.C.*",
        "$O.blobs.M.*",
        f"$JS.API.DIRECT.GET.{streams.BLOBS}",
        f"$JS.API.DIRECT.GET.{streams.BLOBS}.$O.blobs.M.*",
        f"$JS.API.DIRECT.GET.{streams.LEADER}.{subjects.LEADERSHIP_KEY}",
        "$JS.API.CONSUMER.MSG.NEXT.WORK.{{tag(class)}}",
        subjects.control(subjects.ALL_LENDERS),
        permissions.USER_INFO,
    }
    witnessed = {"$JS.API.DIRECT.GET.HEADS.head.*", "offer.*"} if role == "observer" else set()
    for right in RIGHTS:
        if right.role == role and right.verb != "answer" and SELF not in right.subject:
            assert right.subject in of_nobody | witnessed
    everything = granted(role, "publish", ME) + granted(role, "subscribe", ME)
    for theirs in (
        subjects.submit(OTHER, "job-0001"),
        subjects.cancel(OTHER, "job-0001"),
        subjects.event(OTHER, "job-0001"),
        subjects.result(OTHER, "job-0001"),
        subjects.done(OTHER),
        subjects.head(OTHER),
        subjects.control(OTHER),
        f"$JS.API.DIRECT.GET.RESULTS.{subjects.result(OTHER, 'job-0001')}",
        f"_INBOX_{OTHER}.x",
        "_INBOX.x",
        ">",
        "*",
        f"$JS.API.STREAM.PURGE.{streams.BLOBS}",
        f"$JS.API.STREAM.INFO.{streams.JOBS}",
        f"$JS.API.CONSUMER.CREATE.{streams.WORK}.x",
    ):
        assert not permits(everything, theirs), theirs


def test_a_stranger_may_ask_to_be_let_in_and_hear_the_answer() -> None:
    assert granted("stranger", "publish", ME) == (subjects.ENROL, permissions.USER_INFO)
    assert granted("stranger", "subscribe", ME) == (f"{STRANGERS_INBOX}.*.*",)


def test_each_line_says_why_and_stands_once() -> None:
    assert len({right[:3] for right in RIGHTS}) == len(RIGHTS)
    assert all(right.why for right in RIGHTS)


def test_what_a_template_stands_for() -> None:
    assert permissions.pattern_of(f"submit.{SELF}.*") == "submit.*.*"
    assert permissions.pattern_of(f"x.assign_{SELF}") == "x.*"


def test_the_document_is_that_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("made", DOCS / "generate_permissions.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert not generator.is_stale(), "run make schemas"

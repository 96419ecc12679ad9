"""The table of permissions: what it grants to whom, and that its document follows it."""

import importlib.util
from pathlib import Path

import pytest
from core_world import ALICE

from lender.protocol import permissions, streams, subjects
from lender.protocol.permissions import RIGHTS, SELF, STRANGERS_INBOX, Role, granted, permits

DOCS = Path(__file__).parents[2] / "docs"
ME, OTHER = "UME", "UOTHER"
CLASS = f"default_wasm_any_none_{ALICE.public_key}_wasm"
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


def test_a_lender_reads_and_adds_for_the_submitters_of_its_classes_alone() -> None:
    tags = permissions.completed((f"class:{CLASS}", "site:x", "class:no class"))
    assert tags == (f"class:{CLASS}", "site:x", "class:no class", f"submitter:{ALICE.public_key}")
    assert permissions.completed(tags) == tags
    allowed = granted("lender", "publish", ME, tags)
    sha256 = "ab" * 32
    mine = subjects.blob(ALICE.public_key, ME, sha256, 0)
    assert permits(allowed, mine)
    assert permits(allowed, f"$JS.API.DIRECT.GET.{streams.left(ALICE.public_key)}.{mine}")
    input_ = subjects.blob(ALICE.public_key, ALICE.public_key, sha256, 0)
    assert permits(allowed, f"$JS.API.DIRECT.GET.{streams.bucket(ALICE.public_key)}.{input_}")
    for theirs in (
        subjects.former_blob(ALICE.public_key, ME, sha256, 0),
        subjects.blob(ALICE.public_key, OTHER, sha256, 0),
        subjects.blob(ALICE.public_key, ALICE.public_key, sha256, 0),
        subjects.blob(OTHER, ME, sha256, 0),
        f"$JS.API.DIRECT.GET.{streams.bucket(OTHER)}.{subjects.blob(OTHER, OTHER, sha256, 0)}",
        f"$JS.API.STREAM.PURGE.{streams.bucket(ALICE.public_key)}",
    ):
        assert not permits(allowed, theirs), theirs
    everywhere = granted("lender", "publish", ME, permissions.completed(("class:*",)))
    assert permits(everywhere, subjects.blob(OTHER, ME, sha256, 0))
    assert not permits(everywhere, subjects.blob(OTHER, OTHER, sha256, 0))
    assert not permits(everywhere, f"$JS.API.DIRECT.GET.{streams.RESULTS}")


@pytest.mark.parametrize("role", ["lender", "submitter", "observer"])
def test_nobody_but_the_broker_reaches_what_is_anothers(role: Role) -> None:
    """What names a person names oneself; what names nobody is listed here, and nothing else is."""
    of_nobody = {
        "$JS.API.DIRECT.GET.*.blob.{{tag(submitter)}}.>",
        "$JS.API.DIRECT.GET.*.out.{{tag(submitter)}}.>",
        f"$JS.API.DIRECT.GET.{streams.LEADER}.{subjects.LEADERSHIP_KEY}",
        "$JS.API.CONSUMER.MSG.NEXT.WORK.{{tag(class)}}",
        subjects.control(subjects.ALL_LENDERS),
        permissions.USER_INFO,
    }
    witnessed = set()
    if role == "observer":
        witnessed = {"$JS.API.DIRECT.GET.HEADS.head.*", "offer.*"}
        witnessed |= {*subjects.SERVICE_FILTERS, subjects.of_service("*")}
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
        subjects.blob(OTHER, ME, "ab" * 32, 0),
        subjects.blob(ME, OTHER, "ab" * 32, 0),
        subjects.former_blob(ME, OTHER, "ab" * 32, 0),
        f"$JS.API.DIRECT.GET.{streams.bucket(OTHER)}.{subjects.of_bucket(OTHER)}",
        f"$JS.API.DIRECT.GET.{streams.left(OTHER)}.{subjects.of_left(OTHER)}",
        f"$JS.API.DIRECT.GET.{streams.bucket(ME)}",
        f"$JS.API.STREAM.PURGE.{streams.bucket(OTHER)}",
        f"$JS.API.STREAM.PURGE.{streams.bucket(ME)}",
        f"$JS.API.STREAM.MSG.DELETE.{streams.bucket(ME)}",
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


def test_the_document_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location("made", DOCS / "generate_permissions.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.FILE.read_text() == generator.text(), "run make schemas"

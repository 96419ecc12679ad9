"""Grants, tombstones and what they cover."""

from core_world import ALICE, BOB, DAY_S, GIB, PROGRAM, START, make_grant

from lender.core.consent import Ask, Consent, Refusal

CHANGED = "workload render changed since you agreed (grant G-1): lender grant it again"


def ask(**changes: object) -> Ask:
    fields: dict[str, object] = {
        "submitter": ALICE.public_key,
        "workload": "render",
        "digest": None,
        "cpu": 1,
        "memory_bytes": GIB,
    }
    return Ask(**(fields | changes))  # type: ignore[arg-type]  # a test's keyword soup


def refused(consent: Consent, **changes: object) -> str:
    answer = consent.covers(ask(**changes), START)
    assert isinstance(answer, Refusal)
    return answer.reason


def test_a_machine_whose_owner_said_nothing_allows_nothing() -> None:
    assert refused(Consent()) == "no grant names this submitter"
    assert Consent().next_expiry(START) is None


def test_a_grant_covers_its_submitter_workload_and_limits_only() -> None:
    grant = make_grant(cpu=2, memory_bytes=2 * GIB)
    consent = Consent((grant,))
    assert consent.covers(ask(cpu=2, memory_bytes=2 * GIB), START) == grant
    assert refused(consent, submitter=BOB.public_key) == "no grant names this submitter"
    assert "no grant allows workload command" in refused(consent, workload="command")
    assert refused(consent, cpu=3) == "asks for 3 cores, grant G-1 allows 2"
    assert "bytes of memory, grant G-1 allows" in refused(consent, memory_bytes=2 * GIB + 1)


def test_a_gpu_and_its_memory_want_words_of_their_own() -> None:
    assert refused(Consent((make_grant(vram_bytes=0),)), gpu=True).endswith("grant G-1 allows none")
    consent = Consent((make_grant(vram_bytes=GIB),))
    assert consent.covers(ask(gpu=True, vram_bytes=GIB), START) == consent.grants[0]
    assert "GPU memory, grant G-1 allows" in refused(consent, gpu=True, vram_bytes=GIB + 1)


def test_a_pinned_grant_covers_one_program() -> None:
    consent = Consent((make_grant(digest=PROGRAM),))
    assert consent.covers(ask(digest=PROGRAM), START) == consent.grants[0]
    assert refused(consent, digest="00" * 32) == CHANGED
    assert refused(consent) == CHANGED


def test_any_of_several_grants_may_cover() -> None:
    wide = make_grant("G-2")
    consent = Consent((wide, make_grant("G-1", cpu=1)))
    assert consent.covers(ask(cpu=2), START) == wide


def test_a_tombstone_beats_its_grant_and_expiry_ends_it() -> None:
    grants = (make_grant("G-1"), make_grant("G-2", not_after=START + DAY_S))
    consent = Consent(grants, frozenset({"G-1"}))
    assert consent.valid(START) == (grants[1],)
    assert consent.next_expiry(START) == START + DAY_S
    assert consent.valid(START + DAY_S) == ()


def test_the_digest_changes_with_what_is_allowed() -> None:
    consent = Consent((make_grant(not_after=START + 1),))
    assert consent.digest(START) == consent.digest(START + 0.5)
    assert consent.digest(START) != consent.digest(START + 1)

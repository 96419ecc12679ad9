"""What a lender offers, and how often."""

from dataclasses import replace

import pytest
from core_world import (
    ALICE,
    BOB,
    BUSY,
    CALM,
    DAY_S,
    GIB,
    LENDER,
    LIMITS,
    MACHINE,
    START,
    Bench,
    class_of,
    every,
    lease_id,
    make_config,
    make_grant,
    make_lease,
    make_spec,
    the,
)

from lender.core.consent import Consent
from lender.core.effects import OpenSandbox, ReturnLease, SendOffer, SendReport
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    BrokerGreeted,
    Capabilities,
    CapabilitiesFound,
    ConsentLoaded,
    DiskSampled,
    TimeAdvanced,
)
from lender.core.hold import NEEDED_HERE
from lender.core.offering import CLASSES_MAX, class_tokens
from lender.core.policy import Policy
from lender.core.schedule import parse_when
from lender.protocol.bounds import OFFERED_BYTES_MAX
from lender.protocol.classes import WorkClass
from lender.protocol.lease import OfferedNet


def offers(bench: Bench, duration_s: float) -> int:
    return len(every(SendOffer, bench.wait(duration_s)))


def test_an_offer_says_what_is_lent() -> None:
    bench = Bench().ready()
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert (offer.lender, offer.name, offer.phase) == (LENDER, "desk-7", "lending")
    assert offer.reason == "", "nothing of the owner's presence"
    assert (offer.slots_total, offer.slots_free, offer.cpu_free) == (4, 4, 3.5)
    assert (offer.memory_free_bytes, offer.vram_free_bytes) == (11 * GIB, 7 * GIB)
    assert (offer.arch, offer.os, offer.runtimes) == ("x86_64", "linux", ("process", "wasm"))
    assert offer.leases == ()
    assert (offer.disk_free_bytes, offer.blobs) == (None, ()), "nobody has looked yet"


def test_an_offer_says_what_the_disk_holds() -> None:
    bench = Bench(disk_kept_bytes=GIB).ready()
    bench.tell(DiskSampled(10 * GIB, ("ab" * 32,)))
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert (offer.disk_free_bytes, offer.blobs) == (9 * GIB, ("ab" * 32,))
    bench.run(make_lease(make_spec(limits={"scratch_bytes": 2 * GIB})))
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert offer.disk_free_bytes == 7 * GIB, "beside what leases may still write"
    bench.end(0)
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert offer.disk_free_bytes == 9 * GIB
    bench.tell(DiskSampled(1 << 60))
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert offer.disk_free_bytes == OFFERED_BYTES_MAX
    bench.tell(DiskSampled(0))
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.disk_free_bytes == 0


def test_a_lease_waits_for_disk_space_that_others_hold() -> None:
    bench = Bench().ready()
    bench.tell(DiskSampled(3 * GIB))
    spec = make_spec(limits={"scratch_bytes": 2 * GIB})
    assert every(OpenSandbox, bench.deliver(make_lease(spec)))
    again = bench.deliver(make_lease(spec, 2))
    assert every(ReturnLease, again)
    assert not every(SendReport, again)


def test_an_offer_says_what_the_machine_is_called() -> None:
    bench = Bench(labels=("ssd",)).ready()
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.labels == ("ssd",)


def test_a_stay_ends_with_the_first_grant_that_ends_whoever_is_present() -> None:
    bench = Bench().ready()
    soon = make_grant("G-1", not_after=START + DAY_S)
    late = make_grant("G-2", BOB)
    bench.tell(ConsentLoaded(Consent((soon, late))))
    left_s = the(SendOffer, bench.tell(BrokerGreeted())).offer.stay_s
    assert left_s == pytest.approx(soon.not_after - bench.now)
    bench.tell(ConsentLoaded(Consent((replace(soon, when=parse_when("Mon 00:00-00:01")), late))))
    left_s = the(SendOffer, bench.tell(BrokerGreeted())).offer.stay_s
    assert left_s == pytest.approx(late.not_after - bench.now), "what is closed does not count"
    bench.tell(ConsentLoaded(Consent(())))
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.stay_s is None


def test_it_does_not_list_what_goes_back_as_it_came() -> None:
    """Who reads that it is held takes it for begun."""
    bench = Bench().ready()
    bench.pause()
    assert every(SendReport, bench.deliver())
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.leases == ()


def test_it_lists_its_leases_with_their_states() -> None:
    bench = Bench().ready()
    bench.run()
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert [(one.lease, one.state) for one in offer.leases] == [(lease_id(1), "running")]
    assert (offer.slots_free, offer.cpu_free) == (3, 2.5)
    bench.end(0)
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert [one.lease for one in offer.leases] == [lease_id(1)], "held until it is answered"
    bench.answer(1)
    assert the(SendOffer, bench.tell(BrokerGreeted())).offer.leases == ()


def test_a_lender_that_lacks_anything_offers_no_slot() -> None:
    bench = Bench()
    bench.tell(BrokerConnected())
    assert (
        bench.lender.status(bench.now).reason == "the owner's stored intent has not been read yet"
    )
    offer = the(SendOffer, bench.tell(CapabilitiesFound(MACHINE))).offer
    assert (offer.phase, offer.slots_free) == ("paused", 0)
    bench.pause(paused=False)
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert (offer.phase, offer.classes) == ("unconsented", ())
    bench.consent(make_grant())
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert (offer.phase, offer.reason) == ("yielding", NEEDED_HERE)
    bench.tell(CALM)
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert (offer.phase, offer.slots_free) == ("lending", 4)


def test_without_a_self_test_it_is_offline_and_silent() -> None:
    bench = Bench()
    bench.consent(make_grant())
    bench.pause(paused=False)
    bench.tell(CALM)
    assert bench.lender.status(bench.now).reason == "the sandboxes' self-test has not ended yet"
    assert bench.tell(BrokerConnected()) == []
    assert bench.lender.status(bench.now).phase == "offline"


def test_grants_that_fit_nothing_here_are_told() -> None:
    bench = Bench().ready(make_grant(workload="unheard-of"))
    offer = the(SendOffer, bench.tell(BrokerGreeted())).offer
    assert offer.reason.startswith("no grant names a workload that works here")


def test_a_change_is_offered_at_once_but_not_more_often_than_every_50_ms() -> None:
    bench = Bench().ready()
    bench.wait(1.0)
    assert the(SendOffer, bench.pause()).offer.phase == "paused"
    assert bench.tell(CALM, 0.01) == [], "nothing changed but numbers"
    assert bench.pause(paused=False) == []
    assert bench.lender.next_deadline() == START + 1.05
    (effect,) = bench.wait(0.05)
    assert isinstance(effect, SendOffer)
    assert effect.offer.phase == "lending"


def test_of_a_short_lease_that_repeats_another_nothing_is_offered() -> None:
    bench = Bench().ready()
    bench.wait(1.0)
    (effect,) = every(SendOffer, bench.run())
    assert [one.lease for one in effect.offer.leases] == [lease_id(1)], "it may take any time"
    bench.end(0)
    bench.answer(1)
    bench.wait(1.0)
    assert every(SendOffer, bench.run(make_lease(make_spec(id="job-00002"), 2))) == []
    assert bench.lender.next_deadline() == bench.now + 0.05
    bench.now += 0.02
    assert every(SendOffer, bench.end(0, number=2) + bench.answer(1, lease=2)) == []
    assert offers(bench, 1.0) == 0, "it lends what it has said that it does"
    assert every(SendOffer, bench.run(make_lease(make_spec(id="job-00003"), 3))) == []
    (effect,) = every(SendOffer, bench.wait(0.05))
    assert [one.lease for one in effect.offer.leases] == [lease_id(3)]
    assert effect.offer.slots_free == 3


def test_what_an_owner_says_does_not_wait_for_a_lease() -> None:
    bench = Bench().ready()
    bench.wait(1.0)
    bench.run()
    assert the(SendOffer, bench.pause() + bench.wait(0.05)).offer.phase == "paused"


def test_the_heartbeat_is_slow_when_idle_and_quick_while_leases_are_held() -> None:
    bench = Bench().ready()
    bench.wait(1.0)
    assert offers(bench, 20.0) == 4
    bench.run()
    bench.wait(0.5)
    assert offers(bench, 5.0) == 10


def test_nothing_is_offered_while_disconnected_and_at_once_when_back() -> None:
    bench = Bench().ready()
    bench.tell(BrokerDisconnected())
    assert bench.lender.status(bench.now).reason == "not connected to the broker"
    assert offers(bench, 60.0) == 0
    assert the(SendOffer, bench.tell(BrokerConnected())).offer.phase == "lending"


def test_yielding_is_offered_without_a_word_on_the_owner() -> None:
    bench = Bench().ready()
    offer = the(SendOffer, bench.tell(BUSY, 1.0)).offer
    assert (offer.phase, offer.slots_free) == ("yielding", 0)
    assert offer.reason == NEEDED_HERE
    assert bench.lender.status(bench.now).reason == "others use 3.0 cores, over 2.0"


def test_classes_follow_grants_catalogue_machine_and_pools() -> None:
    config = make_config(pools=("default", "lab"))
    machine = Capabilities("aarch64", "linux", frozenset({"wasm"}), "nvidia")
    grants = [
        make_grant("G-1"),
        make_grant("G-2", BOB),
        make_grant("G-3", workload="command"),
        make_grant("G-4", workload="unheard-of"),
    ]
    tokens = class_tokens(config, machine, grants)
    classes = [WorkClass.parse(token) for token in tokens]
    assert {one.pool for one in classes} == {"default", "lab"}
    assert {one.arch for one in classes} == {"any", "aarch64"}
    assert {one.gpu for one in classes} == {"none", "nvidia"}
    assert {one.workload for one in classes} == {"render"}, "no process here, and no stranger"
    assert {one.submitter for one in classes} == {ALICE.public_key, BOB.public_key}
    assert len(tokens) == 2 * 2 * 2 * 2
    assert class_of(make_spec(requires={"pool": "lab", "arch": "aarch64"})) in tokens


def test_an_architecture_that_no_job_can_name_is_not_listed() -> None:
    machine = Capabilities("armv7l", "linux", frozenset({"wasm"}))
    assert class_tokens(make_config(), machine, [make_grant()]) == (class_of(),)


def test_a_network_is_offered_where_a_grant_names_one_and_the_sandbox_can_have_it() -> None:
    bench = Bench().ready()
    reach = ("a.org", "internet")
    granted = (
        make_grant("G-1", workload="command", net=reach),
        make_grant("G-2", workload="command"),
        make_grant("G-3", net=reach),  # by wasm
        make_grant("G-4", workload="unheard-of", net=reach),
    )
    bench.now += 1.0
    before = the(SendOffer, bench.consent(*granted)).offer
    assert before.net == ()
    found = CapabilitiesFound(replace(MACHINE, net=frozenset({"process", "python"})))
    after = the(SendOffer, bench.tell(found, 1.0)).offer
    assert after.net == (OfferedNet(submitter=ALICE.public_key, workload="command", reach=reach),)
    assert after.classes == before.classes


def test_no_more_classes_are_listed_than_an_offer_may_hold() -> None:
    pools = tuple(f"pool-{number}" for number in range(CLASSES_MAX))
    tokens = class_tokens(make_config(pools=pools), MACHINE, [make_grant()])
    assert len(tokens) == CLASSES_MAX


def test_a_changed_consent_is_offered_with_its_digest() -> None:
    bench = Bench().ready()
    before = the(SendOffer, bench.tell(BrokerGreeted())).offer
    bench.now += 1.0
    after = the(SendOffer, bench.consent(make_grant(), make_grant("G-2", BOB))).offer
    assert after.consent_digest != before.consent_digest
    assert set(after.classes) > set(before.classes)


def test_an_expiry_changes_the_offer_when_its_time_comes() -> None:
    bench = Bench().ready(make_grant(not_after=START + 100.0))
    bench.wait(99.0)
    effects = bench.wait(1.0)
    assert every(SendOffer, effects)[-1].offer.phase == "unconsented"
    assert bench.now == START + 100.0


def test_a_reserve_of_every_core_lends_none() -> None:
    limits = replace(LIMITS, cores_kept=1.0)
    bench = Bench(cores=1.0, policy=Policy(in_use=limits, away=limits)).ready()
    assert bench.lender.status(bench.now).slots_total == 0
    bench.open()
    effects = bench.deliver(make_lease())
    assert not every(SendOffer, [one for one in effects if not isinstance(one, SendOffer)])
    assert bench.lender.status(bench.now).attempts == ()


def test_next_deadline_lies_ahead_and_without_anything_to_wait_for_there_is_none() -> None:
    bench = Bench()
    assert bench.lender.handle(START, TimeAdvanced()) == []
    assert bench.lender.next_deadline() is None
    bench.tell(ConsentLoaded(Consent((make_grant(not_after=START + 9.0),))))
    assert bench.lender.next_deadline() == START + 9.0

"""Which class queues a lender pulls from."""

from core_world import (
    BOB,
    BUSY,
    CALM,
    LENDER,
    MACHINE,
    START,
    Bench,
    class_of,
    every,
    make_grant,
    make_lease,
    make_spec,
)

from lender.core.effects import Effect, PullWork, ReturnLease
from lender.core.events import (
    BrokerConnected,
    BrokerDisconnected,
    CapabilitiesFound,
    ClassesOpened,
    LeaseDelivered,
    LeaseMalformed,
    PullEnded,
    SandboxPrepared,
)
from lender.protocol.classes import own_queue

RENDER, PINNED = class_of(), class_of(make_spec(workload="pinned"))
BOTH = (make_grant("G-1"), make_grant("G-2", workload="pinned"))


def pulled(effects: list[Effect]) -> list[tuple[str, int]]:
    return [(one.work_class, one.batch) for one in every(PullWork, effects)]


def test_an_open_class_is_pulled_once_for_all_free_slots() -> None:
    bench = Bench().ready()
    assert every(PullWork, bench.open()) == [PullWork(RENDER, 4, 30.0)]
    assert pulled(bench.open()) == []
    assert pulled(bench.tell(CALM)) == []


def test_a_class_that_no_grant_allows_is_never_pulled() -> None:
    bench = Bench().ready()
    assert pulled(bench.open(class_of(make_spec(BOB)), "junk")) == []


def test_a_pull_that_brought_work_is_followed_by_the_next() -> None:
    bench = Bench().ready()
    bench.open()
    bench.deliver()
    assert pulled(bench.tell(PullEnded(RENDER, refused=False))) == [(RENDER, 3)]


def test_the_last_that_a_pull_has_asked_for_ends_it() -> None:
    bench = Bench().ready()
    bench.open()
    delivered = LeaseDelivered(RENDER, 1, make_lease(), ends_pull=True)
    assert pulled(bench.tell(delivered)) == [(RENDER, 3)]


def test_a_pull_that_brought_nothing_is_followed_after_a_rest() -> None:
    bench = Bench().ready()
    bench.open()
    assert pulled(bench.tell(PullEnded(RENDER, refused=False))) == []
    assert pulled(bench.wait(0.9)) == []
    assert pulled(bench.wait(0.1)) == [(RENDER, 4)]
    bench.tell(PullEnded(RENDER, refused=False))
    assert pulled(bench.open()) == [(RENDER, 4)], "the broker says there is work: no rest"


def test_a_refused_pull_closes_the_class_until_it_is_opened_again() -> None:
    bench = Bench().ready()
    bench.open()
    bench.tell(PullEnded(RENDER, refused=True))
    assert pulled(bench.wait(60.0)) == []
    assert pulled(bench.open()) == [(RENDER, 4)]


def test_a_class_that_is_opened_for_a_while_is_left_after_it() -> None:
    bench = Bench().ready()
    assert every(PullWork, bench.tell(ClassesOpened((RENDER,), 2.5))) == [PullWork(RENDER, 4, 2.5)]
    assert pulled(bench.tell(CALM, 2.6)) == []
    assert pulled(bench.tell(PullEnded(RENDER, refused=False))) == []
    assert pulled(bench.wait(60.0)) == []
    assert every(PullWork, bench.tell(ClassesOpened((RENDER,), 60.0))) == [
        PullWork(RENDER, 4, 30.0)
    ]


def test_the_last_word_on_a_class_counts() -> None:
    for words in ((None, 1.0), (60.0, 1.0)):
        bench = Bench().ready()
        for stand_s in words:
            bench.tell(ClassesOpened((RENDER,), stand_s))
        assert pulled(bench.tell(PullEnded(RENDER, refused=False), 30.0)) == []
        assert pulled(bench.wait(60.0)) == []


def test_a_queue_that_gives_more_at_once_is_not_left_yet() -> None:
    bench = Bench().ready()
    bench.tell(ClassesOpened((RENDER,), 0.1))
    bench.deliver()
    again = bench.tell(PullEnded(RENDER, refused=False), 0.5)
    assert every(PullWork, again) == [PullWork(RENDER, 3, 0.5)]
    bench.now += 0.4
    bench.deliver(make_lease(number=2))
    assert pulled(bench.tell(PullEnded(RENDER, refused=False), 0.2)) == [], "that one came late"
    assert pulled(bench.wait(60.0)) == []


def test_who_had_no_slot_looks_once_whether_more_has_come() -> None:
    bench = Bench(slots=1).ready()
    bench.tell(ClassesOpened((RENDER,), 0.5))
    bench.run()
    bench.tell(PullEnded(RENDER, refused=False))
    bench.wait(10.0)
    assert every(PullWork, bench.end(0)) == [PullWork(RENDER, 1, 0.1)]
    assert pulled(bench.tell(PullEnded(RENDER, refused=False), 0.2)) == []
    assert pulled(bench.wait(60.0)) == []


def test_the_end_of_a_pull_that_was_never_begun_is_harmless() -> None:
    bench = Bench().ready()
    assert pulled(bench.tell(PullEnded(RENDER, refused=False))) == []
    assert pulled(bench.tell(LeaseMalformed(RENDER, 9, "junk"))) == []


def test_without_a_free_slot_nothing_is_pulled() -> None:
    bench = Bench(slots=1).ready()
    bench.open()
    bench.run()
    assert pulled(bench.tell(PullEnded(RENDER, refused=False))) == []
    assert pulled(bench.end(0)) == [(RENDER, 1)], "the slot is free before the answer came"


def test_who_does_not_lend_does_not_pull() -> None:
    for stop in (
        lambda bench: bench.pause(),
        lambda bench: bench.consent(),
        lambda bench: bench.tell(BUSY),
        lambda bench: bench.tell(BrokerDisconnected()),
    ):
        bench = Bench().ready()
        stop(bench)
        assert pulled(bench.open()) == []


def test_a_class_opened_before_a_pause_is_pulled_after_it() -> None:
    bench = Bench().ready()
    bench.open()
    bench.pause()
    bench.tell(PullEnded(RENDER, refused=False))
    assert pulled(bench.wait(10.0)) == []
    assert pulled(bench.pause(paused=False)) == [(RENDER, 4)]


def test_a_class_that_consent_no_longer_names_is_forgotten() -> None:
    bench = Bench().ready(*BOTH)
    bench.open(RENDER, PINNED)
    bench.consent(BOTH[0])
    for one in (RENDER, PINNED):
        bench.tell(PullEnded(one, refused=False))
    assert pulled(bench.wait(2.0)) == [(RENDER, 4)]


def test_a_lease_beyond_the_slots_goes_back_untouched_and_its_class_is_owed_a_slot() -> None:
    bench = Bench(slots=1).ready(*BOTH)
    bench.open(RENDER, PINNED)
    bench.run()
    pinned = make_lease(make_spec(workload="pinned"), 2)
    assert every(ReturnLease, bench.deliver(pinned, PINNED)) == [ReturnLease(2, 0.1)]
    for one in (RENDER, PINNED):
        bench.tell(PullEnded(one, refused=False))
    assert every(PullWork, bench.end(0)) == [PullWork(PINNED, 1, 1.0)]
    bench.deliver(pinned, PINNED)
    bench.tell(PullEnded(PINNED, refused=False))
    bench.tell(SandboxPrepared(pinned.lease))
    assert pulled(bench.end(0, number=2)) == [(RENDER, 1), (PINNED, 1)], "the served one is last"


def test_a_class_that_is_owed_a_slot_but_has_no_work_left_lets_the_others_go_on() -> None:
    bench = Bench(slots=1).ready(*BOTH)
    bench.open(RENDER, PINNED)
    bench.run()
    bench.deliver(make_lease(make_spec(workload="pinned"), 2), PINNED)
    for one in (RENDER, PINNED):
        bench.tell(PullEnded(one, refused=False))
    bench.end(0)
    assert pulled(bench.tell(PullEnded(PINNED, refused=False))) == [(RENDER, 1)]


def test_a_delivery_of_a_closed_class_is_served_all_the_same() -> None:
    bench = Bench(slots=1).ready()
    assert len(bench.lender.status(bench.now).attempts) == 0
    bench.run()
    assert every(ReturnLease, bench.deliver(make_lease(number=2))) == [ReturnLease(2, 0.1)]
    assert len(bench.lender.status(bench.now).attempts) == 1


def test_what_is_no_lease_goes_back_for_a_while() -> None:
    bench = Bench().ready()
    bench.open()
    effects = bench.tell(LeaseMalformed(RENDER, 7, "not a lease"))
    assert every(ReturnLease, effects) == [ReturnLease(7, 10.0)]


def test_a_reconnected_lender_pulls_what_was_open() -> None:
    bench = Bench().ready()
    bench.open()
    bench.tell(BrokerDisconnected())
    bench.tell(PullEnded(RENDER, refused=False), 2.0)
    bench.wait(5.0)
    assert pulled(bench.tell(BrokerConnected())) == [(RENDER, 4)]
    assert bench.now > START


def test_a_changed_machine_changes_what_is_pulled() -> None:
    bench = Bench().ready()
    bench.tell(CapabilitiesFound(MACHINE.__class__("x86_64", "linux", frozenset({"process"}))))
    assert pulled(bench.open()) == []


def test_its_own_queue_is_pulled_from_when_told_and_until_it_is_empty() -> None:
    bench = Bench().ready()
    own = own_queue(LENDER)
    assert pulled(bench.open(own)) == [(own, 4)]
    bench.deliver(work_class=own)
    assert (own, 3) in pulled(bench.tell(PullEnded(own, refused=False)))
    assert pulled(bench.tell(PullEnded(own, refused=False)) + bench.wait(10.0)) == []
    assert pulled(bench.open(own)) == [(own, 3)]


def test_without_consent_its_own_queue_is_nothing_to_it_either() -> None:
    bench = Bench().ready()
    bench.consent()
    assert pulled(bench.open(own_queue(LENDER))) == []

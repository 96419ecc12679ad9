"""A member of a gang is made ready, and runs when the others have been taken too."""

from core_world import (
    Bench,
    array_spec,
    every,
    lease_id,
    make_lease,
    the,
)

from lender.core.effects import (
    FreezeSandbox,
    OpenSandbox,
    RunTasks,
    SendOffer,
    SendReport,
    ThawSandbox,
)
from lender.core.events import GangGathered, LeasesCancelled, SandboxPrepared
from lender.protocol.lease import Lease


def member() -> Lease:
    return make_lease(array_spec(4, gang=True), ranges=((2, 1),))


def test_a_member_waits_for_the_others_when_it_is_ready() -> None:
    bench = Bench().ready()
    assert every(OpenSandbox, bench.deliver(member()))
    assert not every(RunTasks, bench.tell(SandboxPrepared(lease_id(1))))
    offer = every(SendOffer, bench.wait(1.0))[-1].offer
    assert [(held.state, held.ready) for held in offer.leases] == [("preparing", True)]
    assert the(RunTasks, bench.tell(GangGathered((lease_id(1),)))) == RunTasks(lease_id(1), (2,))
    assert not every(RunTasks, bench.tell(GangGathered((lease_id(1),)))), "told again"
    offer = every(SendOffer, bench.wait(1.0))[-1].offer
    assert [(held.state, held.ready) for held in offer.leases] == [("running", False)]


def test_a_member_that_is_not_ready_runs_as_soon_as_it_is() -> None:
    bench = Bench().ready()
    bench.deliver(member())
    assert not every(RunTasks, bench.tell(GangGathered((lease_id(1), lease_id(7)))))
    assert every(RunTasks, bench.tell(SandboxPrepared(lease_id(1))))


def test_a_member_that_stands_still_begins_when_it_goes_on() -> None:
    bench = Bench().ready()
    bench.deliver(member())
    assert every(FreezeSandbox, bench.pause())
    bench.tell(SandboxPrepared(lease_id(1)))
    assert every(ThawSandbox, bench.pause(paused=False))
    assert not every(RunTasks, bench.wait(1.0))
    bench.pause()
    assert not every(RunTasks, bench.tell(GangGathered((lease_id(1),))))
    assert every(RunTasks, bench.pause(paused=False))


def test_waiting_for_the_others_is_no_preparing() -> None:
    bench = Bench().ready()
    bench.run(make_lease(array_spec(4, gang=True, limits={"prepare_s": 5.0}), ranges=((2, 1),)))
    assert not every(SendReport, bench.wait(20.0))


def test_a_member_that_is_given_up_never_runs() -> None:
    bench = Bench().ready()
    bench.deliver(member())
    bench.tell(SandboxPrepared(lease_id(1)))
    bench.tell(LeasesCancelled((lease_id(1),)))
    assert not every(RunTasks, bench.tell(GangGathered((lease_id(1),))))

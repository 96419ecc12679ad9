"""What a lender may ever run, and what it has room for now."""

from math import inf
from string import ascii_uppercase

import pytest
from broker_world import ALICE, L1, L2, class_of, job_spec

from broker.core.matching.fleet import Fleet
from broker.core.matching.lender import NETS_LOOKED_AT, Lender
from broker.core.matching.need import Amounts, Need
from lender.protocol import bounds
from lender.protocol.job import Limits, Requires
from lender.protocol.lease import HeldLease, Offer, OfferedNet

GIB = 1 << 30
ROOMY = {"slots_free": 4, "slots_total": 4, "memory_free_bytes": 8 * GIB}


def need(cpu: int = 1, memory_bytes: int = GIB, scratch_bytes: int = 0, **requires: object) -> Need:
    limits = Limits(cpu=cpu, memory_bytes=memory_bytes, scratch_bytes=scratch_bytes)
    return Need.of(job_spec(limits=limits, requires=Requires(**requires)))


def offer(held: int = 0, **fields: object) -> Offer:
    leases = tuple(
        HeldLease(lease=f"{n:022d}", job="job-0001", submitter=ALICE.public_key, state="running")
        for n in range(held)
    )
    return Offer.model_validate(
        {
            "lender": L1,
            "name": "",
            "phase": "lending",
            "cpu_free": 1.0,
            "arch": "x86_64",
            "os": "linux",
            "runtimes": ("process",),
            "classes": (class_of(),),
            "consent_digest": "",
            "leases": leases,
            **ROOMY,
            **fields,
        }
    )


def lender(said: Offer | None = None, held: tuple[Need, ...] = ()) -> Lender:
    said = said or offer()
    one = Lender(L1, said, 0.0)
    one.hear(0.0, said, held)
    return one


def test_a_need_is_what_the_job_says() -> None:
    said = need(cpu=2, os="linux", labels=("ssd", "ssd"), prefers=("quiet",), vram_bytes=5)
    labels = frozenset({"ssd"}), frozenset({"quiet"})
    assert said == Need(class_of(), 2, GIB, 0, 5, "linux", *labels, net=None, verified=False)
    assert need() == need()


@pytest.mark.parametrize(
    ("asked", "ever"),
    [
        (need(), True),
        (need(cpu=4, memory_bytes=8 * GIB), True),
        (need(cpu=5), False),
        (need(memory_bytes=8 * GIB + 1), False),
        (need(scratch_bytes=GIB), True),
        (need(scratch_bytes=GIB + 1), False),
        (need(vram_bytes=1), False),
        (need(os="linux"), True),
        (need(os="macos"), False),
        (need(labels=("ssd",)), True),
        (need(labels=("ssd", "quiet")), False),
        (need(prefers=("quiet",)), True),
        (need(arch="x86_64"), False),
    ],
)
def test_what_a_lender_may_run(asked: Need, *, ever: bool) -> None:
    one = lender(offer(labels=("ssd",), disk_free_bytes=GIB))
    assert one.may_run(asked) is ever
    assert one.has_room_for(asked) is ever
    one.hear(1.0, offer(labels=("ssd",), disk_free_bytes=GIB, phase="paused", slots_free=0), ())
    assert one.may_run(asked) is ever, "it may again, once it lends again"
    assert not one.has_room_for(asked)


@pytest.mark.parametrize(
    ("asked", "ever"),
    [
        ((), True),
        (("a.org",), True),
        (("a.org:443", "b.a.org"), True),
        (("a.org:22",), False),
        (("a.org", "c.org"), False),
        (("d.org",), False),
        (("internet",), False),
    ],
)
def test_a_network_is_had_where_one_grant_allows_all_of_it(
    asked: tuple[str, ...], *, ever: bool
) -> None:
    def allowed(workload: str, *reach: str) -> OfferedNet:
        return OfferedNet(submitter=ALICE.public_key, workload=workload, reach=reach)

    nets = allowed("command", "a.org", "*.a.org"), allowed("command", "c.org")
    one = lender()
    wanted = need(net=asked)
    assert one.may_run(wanted) is (not asked)
    assert one.hear(1.0, offer(net=(*nets, allowed("render", "d.org"))), ()), "that is news"
    assert one.may_run(wanted) is one.has_room_for(wanted) is ever


def test_a_lender_that_lists_grants_without_end_has_few_of_them_looked_at() -> None:
    nets = [
        OfferedNet(submitter=ALICE.public_key, workload="command", reach=(f"a{one}.org",))
        for one in range(NETS_LOOKED_AT + 1)
    ]
    one = lender()
    one.hear(1.0, offer(net=tuple(nets)), ())
    assert one.may_run(need(net=(f"a{NETS_LOOKED_AT - 1}.org",)))
    assert not one.may_run(need(net=(f"a{NETS_LOOKED_AT}.org",)))
    one.hear(2.0, offer(), ())
    assert not one.may_run(need(net=("a0.org",)))


def test_needs_of_different_networks_are_told_apart_by_their_hashes() -> None:
    """Whoever could make many that share one would have each lookup compare them all."""
    needs = [need(net=(f"a{one}.org",)) for one in range(100)]
    assert len({hash(one) for one in needs}) == 100
    assert needs[0] == need(net=("a0.org",))
    assert hash(needs[0]) == hash(need(net=("a0.org",)))


def test_what_it_can_lend_is_what_is_free_and_what_its_leases_need() -> None:
    held = (need(cpu=2, memory_bytes=3 * GIB, scratch_bytes=5), need(vram_bytes=7))
    one = lender(offer(held=3, vram_free_bytes=1), held)
    assert one.lends == Amounts(4 + 2 + 1 + 1, 12 * GIB, inf, 8), "a lease that is unknown: 1 core"
    assert one.slots == 8


def test_what_it_once_could_lend_is_remembered_while_its_owner_needs_it() -> None:
    one = lender()
    one.hear(1.0, offer(memory_free_bytes=GIB), ())
    assert one.may_run(need(memory_bytes=8 * GIB))
    assert not one.has_room_for(need(memory_bytes=8 * GIB))
    assert one.has_room_for(need())


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        (need(), 8),
        (need(cpu=4), 2),
        (need(cpu=3), 3),
        (need(memory_bytes=8 * GIB), 2),
        (need(memory_bytes=3 * GIB), 6),
        (need(scratch_bytes=GIB), 4),
        (need(vram_bytes=5), 4),
    ],
)
def test_it_has_room_until_all_that_it_lends_is_claimed_twice(asked: Need, times: int) -> None:
    one = lender(offer(disk_free_bytes=2 * GIB, vram_free_bytes=10))
    for number in range(times):
        assert one.has_room_for(asked)
        one.claim(str(number), asked)
    assert not one.has_room_for(asked)
    assert one.has_room_for(need(cpu=1, memory_bytes=GIB)) is one.has_room
    assert one.release("0")
    assert one.has_room_for(asked)


def test_a_full_disk_or_gpu_stops_only_what_needs_it() -> None:
    one = lender(offer(disk_free_bytes=0, vram_free_bytes=0))
    assert one.has_room_for(need())
    assert not one.has_room_for(need(scratch_bytes=1))


def test_a_disk_that_nothing_was_known_of_is_no_endless_one() -> None:
    one = lender()
    assert one.may_run(need(scratch_bytes=GIB))
    one.hear(1.0, offer(disk_free_bytes=10), ())
    assert not one.may_run(need(scratch_bytes=GIB))


def test_growth_is_told_and_nothing_else() -> None:
    one = lender()
    assert not one.hear(1.0, offer(), ())
    assert not one.hear(1.0, offer(memory_free_bytes=GIB), ())
    assert one.hear(1.0, offer(), ())
    assert one.hear(1.0, offer(labels=("ssd",)), ())
    assert one.hear(1.0, offer(labels=("hdd",)), ())
    assert one.hear(1.0, offer(labels=("hdd",), classes=()), ())
    assert one.hear(1.0, offer(os="macos"), ())
    assert not one.hear(1.0, offer(os="macos", blobs=("0" * 64,)), ())
    assert one.blobs == {"0" * 64}
    for number in range(7):
        one.claim(str(number), need())
    assert not one.release("0"), "there was room before"


def test_the_fleet_counts_what_all_lend_together() -> None:
    fleet = Fleet()
    fleet.hear(0.0, offer(), ())
    fleet.hear(0.0, offer(lender=L2, vram_free_bytes=3), ())
    assert fleet.lends == Amounts(8, 16 * GIB, 0, 3)
    fleet.hear(0.0, offer(slots_free=1), ())
    assert fleet.lends == Amounts(5, 16 * GIB, 0, 3)
    fleet.hear(0.0, offer(phase="yielding", slots_free=0), ())
    assert fleet.lends == Amounts(4, 8 * GIB, 0, 3)
    fleet.forget(L2)
    assert fleet.lends == Amounts()


def test_what_was_added_up_comes_down_to_nothing() -> None:
    fleet = Fleet()
    most = bounds.OFFERED_BYTES_MAX
    fleet.hear(0.0, offer(memory_free_bytes=most, vram_free_bytes=most), ())
    for number, letter in enumerate(ascii_uppercase):
        one = offer(lender=L1[:-1] + letter, memory_free_bytes=most - number)
        fleet.hear(0.0, one, ())
    fleet.hear(0.0, offer(lender=L2, memory_free_bytes=1), ())
    for one in list(fleet):
        fleet.forget(one.id)
    assert fleet.lends == Amounts()


def test_lenders_that_get_room_are_told_of_once() -> None:
    fleet = Fleet()
    fleet.hear(0.0, offer(slots_free=0, slots_total=1), ())
    assert fleet.take_fresh() == []
    one, _ = fleet.hear(0.0, offer(slots_free=1), ())
    assert fleet.take_fresh() == [one]
    assert fleet.take_fresh() == []
    fleet.hear(1.0, offer(slots_free=1), ())
    assert fleet.take_fresh() == [], "nothing has changed"
    fleet.claim(L1, "a", need())
    fleet.claim(L1, "b", need())
    assert one.place is None
    fleet.release(L1, "a")
    assert one.place is not None
    fleet.claim(L1, "c", need())
    assert fleet.take_fresh() == [], "it has none any more"
    fleet.release(L1, "c")
    fleet.forget(L1)
    assert fleet.take_fresh() == []

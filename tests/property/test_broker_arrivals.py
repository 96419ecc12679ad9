"""Each message of the ledger is taken up once, and each submitter's in order, whoever reads it."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.intake.arrivals import Arrivals

WHO = ("a", "b", "c")
ROOM = 2

ops = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("page"), st.sampled_from(WHO)),
        st.tuples(st.just("drain"), st.sampled_from(WHO)),
        st.tuples(st.just("late"), st.sampled_from(WHO)),
    ),
    max_size=60,
)


class Ledger:
    """A stream, lanes with little room, and what was taken out of them."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = messages
        self.arrivals = Arrivals()
        self.lanes: dict[str, list[int]] = {who: [] for who in WHO}
        self.taken: dict[str, list[int]] = {who: [] for who in WHO}
        self.read_up_to = 0

    def read(self, count: int) -> None:
        for sequence in range(self.read_up_to + 1, self.read_up_to + count + 1):
            if sequence > len(self.messages):
                return
            self.read_up_to = sequence
            who = self.messages[sequence - 1]
            if self.arrivals.came(who, sequence):
                if len(self.lanes[who]) < ROOM:
                    self.lanes[who].append(sequence)
                else:
                    self.arrivals.put_off(who, sequence)

    def page(self, who: str) -> list[int]:
        """What the stream holds of a submitter, from where it is wanted; others may be there."""
        first = self.arrivals.wanted_from(who)
        return [
            sequence
            for sequence in range(first, len(self.messages) + 1)
            if self.messages[sequence - 1] == who
        ][:4]

    def take_page(self, who: str, page: list[int]) -> None:
        for sequence in page:
            if self.arrivals.wants(who, sequence):
                if len(self.lanes[who]) >= ROOM:
                    return
                self.lanes[who].append(sequence)
            self.arrivals.took(who, sequence)

    def drain(self, who: str) -> None:
        self.taken[who] += self.lanes[who]
        self.lanes[who] = []


@given(st.lists(st.sampled_from(WHO), max_size=60), ops)
def test_each_message_is_taken_once_and_in_order(messages: list[str], steps: list) -> None:
    ledger = Ledger(messages)
    late: dict[str, list[int]] = {}
    for verb, argument in steps:
        match verb:
            case "read":
                ledger.read(argument)
            case "page":
                ledger.take_page(argument, ledger.page(argument))
            case "late":  # an answer that comes after other things have happened
                ledger.take_page(argument, late.pop(argument, []))
                late[argument] = ledger.page(argument)
            case "drain":
                ledger.drain(argument)
    ledger.read(len(messages))
    for _ in range(len(messages) + 1):
        for who in WHO:
            ledger.drain(who)
            if who in ledger.arrivals.behind:
                ledger.take_page(who, ledger.page(who))
    for who in WHO:
        expected = [at for at, one in enumerate(messages, 1) if one == who]
        assert ledger.taken[who] == expected
    assert not ledger.arrivals.behind


@given(st.lists(st.tuples(st.sampled_from(WHO), st.booleans()), max_size=40))
def test_what_a_replay_puts_off_is_read_again_and_nothing_else(replayed: list) -> None:
    messages = [who for who, _ in replayed]
    ledger = Ledger(messages)
    for sequence, (who, put_off) in enumerate(replayed, 1):
        ledger.arrivals.position = ledger.read_up_to = sequence
        if put_off:
            ledger.arrivals.put_off(who, sequence)
        else:
            ledger.arrivals.took_one(who)
    for _ in range(len(messages) + 1):
        for who in ledger.arrivals.behind:
            ledger.take_page(who, ledger.page(who))
            ledger.drain(who)
    for who in WHO:
        expected = [at for at, one in enumerate(replayed, 1) if one == (who, True)]
        assert ledger.taken[who] == expected


def test_a_flood_that_was_put_off_is_one_range() -> None:
    arrivals = Arrivals()
    for sequence in range(1, 1001):
        who = "b" if sequence % 3 else "a"
        if sequence == 1:
            arrivals.put_off("b", 1)
        elif arrivals.came(who, sequence):
            assert who == "a"
    assert len(arrivals.behind) == 1
    assert len(vars(arrivals)["_owed"]["b"].pairs()) == 1

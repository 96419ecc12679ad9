"""Which of several brokers serves."""

from collections.abc import Iterator

from broker.core.leadership import (
    RENEW_S,
    TAKEOVER_S,
    TERM_S,
    KeyRead,
    KeyRefused,
    KeyStored,
    KeyUnanswered,
    Lead,
    Leadership,
    LeadershipEffect,
    LeadershipEvent,
    ReadKey,
    ServiceEnded,
    StandBy,
    TimePassed,
    WriteKey,
)

ME, OTHER = "me", "other"


class Candidate:
    """A broker, and what it wants done since it was last asked."""

    def __init__(self) -> None:
        self.core = Leadership(ME)
        self.now = 100.0

    def tell(self, event: LeadershipEvent, after_s: float = 0.0) -> list[LeadershipEffect]:
        self.now += after_s
        return self.core.handle(self.now, event)

    def passes(self, seconds: float) -> list[LeadershipEffect]:
        return self.tell(TimePassed(), seconds)

    def leading(self) -> "Candidate":
        assert self.passes(0) == [ReadKey()]
        assert self.tell(KeyRead(0, None)) == [WriteKey(0)]
        assert self.tell(KeyStored(1)) == [Lead()]
        return self

    @property
    def serves(self) -> bool:
        return self.core.may_serve(self.now)


def watched(candidate: Candidate, seconds: float) -> Iterator[list[LeadershipEffect]]:
    """Let a candidate read an unchanged key of another for so long."""
    end = candidate.now + seconds
    while candidate.now < end:
        assert candidate.passes(RENEW_S) == [ReadKey()]
        yield candidate.tell(KeyRead(7, OTHER))


def test_a_key_that_is_nobodys_is_taken_at_once() -> None:
    candidate = Candidate().leading()
    assert candidate.serves
    assert candidate.core.sequence == 1


def test_the_key_of_a_process_that_is_gone_is_taken_at_once() -> None:
    candidate = Candidate()
    candidate.passes(0)
    assert candidate.tell(KeyRead(7, OTHER, gone=True)) == [WriteKey(7)]


def test_our_own_key_of_which_we_do_not_know_is_taken_at_once() -> None:
    candidate = Candidate()
    candidate.passes(0)
    candidate.tell(KeyRead(0, None))
    candidate.tell(KeyUnanswered())
    assert candidate.passes(RENEW_S) == [ReadKey()]
    assert candidate.tell(KeyRead(1, ME)) == [WriteKey(1)]


def test_a_key_that_stands_still_is_taken_after_a_while_and_not_before() -> None:
    candidate = Candidate()
    candidate.passes(0)
    assert candidate.tell(KeyRead(7, OTHER)) == []
    *before, last = watched(candidate, TAKEOVER_S)
    assert not any(before)
    assert last == [WriteKey(7)]
    assert TAKEOVER_S > TERM_S, "its leader has stopped by then"


def test_a_key_that_changes_is_left_alone() -> None:
    candidate = Candidate()
    candidate.passes(0)
    for sequence in range(1, 20):
        assert candidate.tell(KeyRead(sequence, OTHER)) == []
        assert candidate.passes(RENEW_S) == [ReadKey()]
    assert not candidate.serves


def test_of_two_that_take_it_one_is_refused_and_stands_by() -> None:
    candidate = Candidate()
    candidate.passes(0)
    assert candidate.tell(KeyRead(0, None)) == [WriteKey(0)]
    assert candidate.tell(KeyRefused()) == [ReadKey()]
    assert candidate.tell(KeyRead(1, OTHER)) == []
    assert not candidate.serves


def test_a_leader_renews_and_serves_on() -> None:
    candidate = Candidate().leading()
    for sequence in range(1, 10):
        assert candidate.passes(RENEW_S) == [WriteKey(sequence)]
        assert candidate.tell(KeyStored(sequence + 1)) == []
        assert candidate.serves


def test_one_thing_is_asked_at_a_time() -> None:
    candidate = Candidate().leading()
    assert candidate.core.next_deadline() == candidate.now + RENEW_S
    assert candidate.passes(RENEW_S) == [WriteKey(1)]
    assert candidate.passes(10 * RENEW_S) == []
    assert candidate.core.next_deadline() > candidate.now + 1e9


def test_a_term_counts_from_when_the_renewal_was_sent() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    candidate.tell(KeyStored(2), after_s=TERM_S - 0.1)
    assert candidate.serves
    candidate.now += 0.2
    assert not candidate.serves


def test_without_an_answer_it_serves_to_the_end_of_its_term_only() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    assert candidate.tell(KeyUnanswered()) == []
    assert candidate.serves
    assert candidate.passes(TERM_S) == [ReadKey()]
    assert not candidate.serves


def test_a_renewal_whose_answer_was_lost_counts_when_it_is_read() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    candidate.tell(KeyUnanswered())
    assert candidate.passes(RENEW_S) == [ReadKey()]
    assert candidate.tell(KeyRead(2, ME)) == [WriteKey(2)]
    candidate.now += TERM_S - RENEW_S - 0.1
    assert candidate.serves


def test_a_key_that_did_not_change_is_written_again() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    candidate.tell(KeyUnanswered())
    candidate.passes(TERM_S)
    assert candidate.tell(KeyRead(1, ME)) == [WriteKey(1)]
    assert not candidate.serves
    assert candidate.tell(KeyStored(2)) == [], "it goes on where it was"
    assert candidate.serves


def test_a_key_that_its_server_forgot_is_written_anew() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    candidate.tell(KeyUnanswered())
    candidate.passes(TERM_S)
    assert candidate.tell(KeyRead(0, None)) == [WriteKey(0)]
    assert not candidate.serves
    assert candidate.tell(KeyStored(1)) == []
    assert candidate.serves


def test_a_leader_that_reads_another_name_stands_by() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    candidate.tell(KeyUnanswered())
    candidate.passes(RENEW_S)
    assert candidate.tell(KeyRead(2, OTHER)) == [StandBy()]
    assert not candidate.serves


def test_a_leader_whose_write_is_refused_stands_by() -> None:
    candidate = Candidate().leading()
    candidate.passes(RENEW_S)
    assert candidate.tell(KeyRefused()) == [StandBy(), ReadKey()]
    assert not candidate.serves


def test_a_leader_whose_commit_meets_anothers_stands_by() -> None:
    candidate = Candidate().leading()
    assert candidate.tell(ServiceEnded()) == [StandBy()]
    assert not candidate.serves
    assert candidate.tell(ServiceEnded()) == []

"""How jobs have ended is remembered of many, in little memory, and the newest last of all."""

from broker.core.jobs.endings import Ended, Endings
from broker.core.jobs.job import JobKey


def key(number: int) -> JobKey:
    return JobKey("UALICE", f"job-{number:06d}")


def test_each_is_remembered_until_it_is_the_oldest() -> None:
    endings = Endings(page_entries=4, pages_max=3)
    states = ("succeeded", "failed", "cancelled", "rejected", "expired")
    for number in range(18):
        endings.note(key(number), states[number % 5], 1_700_000_000.9 + number)
    known = [number for number in range(18) if endings.get(key(number)) is not None]
    assert known == list(range(4, 18))
    for number in known:
        assert endings.get(key(number)) == Ended(states[number % 5], 1_700_000_000 + number)
    assert endings.get(JobKey("UBOB", "job-000017")) is None


def test_what_is_noted_again_counts_as_the_newest() -> None:
    endings = Endings(page_entries=2, pages_max=2)
    endings.note(key(0), "failed", 1.0)
    endings.note(key(1), "failed", 1.0)
    endings.note(key(0), "succeeded", 2.0)
    assert endings.get(key(0)) == Ended("succeeded", 2)

"""How jobs have ended is remembered of many, in little memory, and the newest last of all."""

import random

from broker.core.jobs.endings import Ended, Endings
from broker.core.jobs.job import JobKey

STATES = ("succeeded", "failed", "cancelled", "rejected", "expired")


def key(number: int, submitter: str = "UALICE") -> JobKey:
    return JobKey(submitter, f"job-{number:06d}")


def known(endings: Endings, submitter: str = "UALICE", upto: int = 5_000) -> list[int]:
    return [one for one in range(upto) if endings.get(key(one, submitter)) is not None]


def test_each_is_remembered_until_it_is_the_oldest() -> None:
    endings = Endings(entries_max=15, page_entries_min=4)
    for number in range(18):
        endings.note(key(number), STATES[number % 5], 1_700_000_000.9 + number)
    assert known(endings) == list(range(4, 18))
    for number in range(4, 18):
        assert endings.get(key(number)) == Ended(STATES[number % 5], 1_700_000_000 + number)
    assert endings.get(JobKey("UBOB", "job-000017")) is None


def test_what_is_noted_again_counts_as_the_newest() -> None:
    endings = Endings(entries_max=100, page_entries_min=3)
    for number, state in ((0, "failed"), (0, "expired"), (1, "failed"), (2, "failed")):
        endings.note(key(number), state, 1.0)
    assert endings.get(key(0)) == Ended("expired", 1)
    endings.note(key(0), "succeeded", 2.0)
    assert endings.get(key(0)) == Ended("succeeded", 2)


def test_whoever_has_most_forgets_and_nobody_else() -> None:
    endings = Endings(entries_max=1_000, page_entries_min=16)
    for number in range(300):
        endings.note(key(number, "UBOB"), "succeeded", 1.0)
    for number in range(50):
        endings.note(key(number, "UCAROL"), "failed", 1.0)
    for number in range(5_000):
        endings.note(key(number), "rejected", 2.0)
    assert known(endings, "UBOB") == list(range(300))
    assert known(endings, "UCAROL") == list(range(50))
    left = known(endings)
    assert left == list(range(5_000 - len(left), 5_000))
    assert 600 <= len(left) <= 650


def test_of_many_submitters_with_few_each_the_bound_holds_too() -> None:
    endings = Endings(entries_max=100, page_entries_min=16)
    chance = random.Random(1)
    names = [f"U{number}" for number in range(30)]
    for number in range(3_000):
        endings.note(key(number, chance.choice(names)), "succeeded", 1.0)
    left = {name: known(endings, name) for name in names}
    assert sum(map(len, left.values())) == 100
    assert all(3 <= len(numbers) <= 4 for numbers in left.values())

"""Hearing of jobs: what is waited for, what is lost, and how few subscriptions it takes."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from core_world import ALICE, array_spec

from lender.client.errors import Unreachable
from lender.client.following import Following
from lender.client.news import AHEAD_MAX, EXPECTED_BYTES_MAX, EXPECTED_MAX, MANY, UNREAD_MAX, News
from lender.link.api import JetStream
from lender.link.connection import Closed, Connected, Connection, Disconnected, Listener
from lender.protocol.codec import encode
from lender.protocol.result import Terminal
from lender.protocol.subjects import REPUBLISHED_HEADER, result

LONG_S = 60.0


class _Line:
    """A connection, as far as news need one."""

    def __init__(self) -> None:
        self.nc = self
        self.subjects: list[str] = []
        self.listeners: list[Listener] = []
        self.handler: Any = None

    async def subscribe(self, subject: str) -> SimpleNamespace:
        self.subjects.append(subject)

        async def unsubscribe() -> None:
            self.subjects.remove(subject)

        return SimpleNamespace(unsubscribe=unsubscribe)

    def handle_at_once(self, _: object, handler: object) -> None:
        self.handler = handler

    def watch(self, listener: Listener) -> Any:  # noqa: ANN401 - what ends it
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def tell(self, job: str, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """As the server delivers: to each subscription that wants it."""
        for wanted in self.subjects:
            if wanted in (event(job), event("*")):
                self.handler(SimpleNamespace(subject=event(job), data=data, headers=headers))


def event(job: str) -> str:
    return f"event.{ALICE.public_key}.{job}"


@pytest.fixture
def line() -> _Line:
    return _Line()


@pytest.fixture
def news(line: _Line) -> News:
    return News(cast("Connection", line), ALICE.public_key)


async def many(news: News) -> None:
    for number in range(MANY):
        await news.follow(f"other-{number}")


async def test_a_few_jobs_are_heard_of_one_by_one_and_many_together(
    line: _Line, news: News
) -> None:
    first = await news.follow("job-1")
    again = await news.follow("job-1")
    assert line.subjects == [event("job-1")]
    await many(news)
    assert line.subjects.count(event("*")) == 1
    assert len(line.subjects) == MANY
    line.tell("job-1", b"one")
    for hearing in (first, again):
        msg = await hearing.next(LONG_S)
        assert msg is not None
        assert msg.data == b"one"
    await news.leave("job-1", first)
    assert event("job-1") in line.subjects
    await news.leave("job-1", again)
    assert event("job-1") not in line.subjects
    for number in range(MANY):
        (hearing,) = news._followed[f"other-{number}"]
        await news.leave(f"other-{number}", hearing)
    assert line.subjects == []


async def test_the_next_jobs_are_heard_of_from_before_they_are_submitted(
    line: _Line, news: News
) -> None:
    ahead = [f"job-{number}" for number in range(AHEAD_MAX)]
    for job in (*ahead, "late"):
        await news.expect(job)
    assert line.subjects == [event(job) for job in ahead], "who follows none pays no more"
    line.tell("job-0", b"early")
    hearing = await news.follow("job-0")
    assert hearing.whole
    msg = await hearing.next(LONG_S)
    assert msg is not None
    assert msg.data == b"early"
    assert not (await news.follow("late")).whole, "nobody listened"
    await news.leave("job-0", hearing)
    assert event("job-0") not in line.subjects
    await news.expect("job-9")
    await news.expect_no_more("job-9")
    assert event("job-9") not in line.subjects
    assert not (await news.follow("job-9")).whole


async def test_who_hears_of_all_has_the_news_of_what_is_followed_later(
    line: _Line, news: News
) -> None:
    await many(news)
    await news.expect("job-2")
    line.tell("job-2", b"early")
    hearing = await news.follow("job-2")
    assert hearing.whole
    msg = await hearing.next(LONG_S)
    assert msg is not None
    assert msg.data == b"early"
    assert not (await news.follow("job-2")).whole, "only who came first has all"


async def test_what_nobody_follows_takes_little_and_is_forgotten(line: _Line, news: News) -> None:
    await many(news)
    for number in range(EXPECTED_MAX + 1):
        await news.expect(f"job-{number}")
    assert not (await news.follow("job-0")).whole
    for _ in range(3):
        line.tell("job-1", bytes(EXPECTED_BYTES_MAX))
    hearing = await news.follow("job-1")
    assert not hearing.whole
    assert await hearing.next(LONG_S) is not None
    assert await hearing.next(0.001) is None


async def test_too_many_and_a_broken_line_are_known_to_have_cost_news(
    line: _Line, news: News
) -> None:
    await many(news)
    await news.expect("job-1")
    hearing = await news.follow("job-1")
    for _ in range(UNREAD_MAX):
        line.tell("job-1")
    assert hearing.whole
    line.tell("job-1")
    assert not hearing.whole
    await news.expect("job-2")
    for listener in line.listeners:
        listener(Disconnected())
        listener(Connected())
    assert not (await news.follow("job-2")).whole


async def test_a_line_that_is_closed_for_good_ends_the_wait(line: _Line, news: News) -> None:
    hearing = await news.follow("job-1")
    waiting = asyncio.create_task(hearing.next(LONG_S))
    await asyncio.sleep(0)
    line.listeners[0](Closed("revoked"))
    with pytest.raises(Unreachable):
        await waiting
    with pytest.raises(Unreachable):
        await hearing.next(LONG_S)
    news.close()
    assert line.listeners == []


async def test_a_timeout_that_comes_with_a_message_is_not_lost(line: _Line, news: News) -> None:
    following = Following(
        cast("Connection", line),
        cast("JetStream", None),
        news,
        array_spec(2),
        lambda record: (record, frozenset()),
        with_tasks=False,
    )
    async with following:
        following._sweep = None
        waiting = asyncio.create_task(following.more())
        await asyncio.sleep(0)
        line.tell(array_spec(2).id)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await following.more() == [], "the message is still there, and says nothing"


@pytest.mark.parametrize(("with_tasks", "heard"), [(False, True), (True, False)])
async def test_the_servers_own_word_on_an_end_counts_where_no_results_come_before_it(
    line: _Line, news: News, *, with_tasks: bool, heard: bool
) -> None:
    spec = array_spec(2)
    following = Following(
        cast("Connection", line),
        cast("JetStream", None),
        news,
        spec,
        lambda record: (record, frozenset()),
        with_tasks=with_tasks,
    )
    end = Terminal(
        job=spec.id, state="failed", tasks_succeeded=0, tasks_failed=2, tasks_total=2, finished_at=1
    )
    async with following:
        following._sweep = None
        line.tell(spec.id, encode(end), {REPUBLISHED_HEADER: result(spec.submitter, spec.id)})
        await following.more()
        assert (following.terminal is not None) == heard

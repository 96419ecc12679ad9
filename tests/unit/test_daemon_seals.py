"""What a lender opens of a sealed job, and what it lets out of it."""

import asyncio
from pathlib import Path

import pytest
from core_world import ALICE, BOB, make_spec

from lender.daemon.seals import Seal, Seals
from lender.protocol.job import JobSpec
from lender.protocol.result import TaskResult
from lender.protocol.sealing import (
    KEY_BYTES,
    SealBrokenError,
    purpose,
    seal,
    seal_key,
    unseal,
    unseal_result,
)
from lender.sandbox.plan import TaskOutcome

KEY = bytes(range(KEY_BYTES))
INPUT = purpose("input", "a")
LARGE = bytes(9 << 20)


async def at_once() -> None:
    pass


def sealed_spec() -> JobSpec:
    keys = {one.public_key: seal_key(KEY, one.public_key) for one in (ALICE, BOB)}
    return make_spec(sealing={"keys": keys})


def test_only_a_sealed_job_is_opened_and_only_by_whom_it_is_sealed_to(tmp_path: Path) -> None:
    seals = Seals(BOB, tmp_path)
    assert seals.of(make_spec()) is None
    assert seals.of(sealed_spec()) is not None
    keys = {ALICE.public_key: "A" * 107, BOB.public_key: seal_key(KEY, ALICE.public_key)}
    with pytest.raises(SealBrokenError):
        seals.of(make_spec(sealing={"keys": keys}))


async def test_what_stands_still_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(seal(KEY, INPUT, LARGE))
    thawed, asked = asyncio.Event(), asyncio.Event()

    async def go_on() -> None:
        asked.set()
        await thawed.wait()

    opening = asyncio.create_task(
        Seal(KEY, tmp_path).open_file(tmp_path / "sealed", INPUT, tmp_path / "plain", go_on)
    )
    await asyncio.wait_for(asked.wait(), 10)
    assert (tmp_path / "plain").stat().st_size == 0
    thawed.set()
    await asyncio.wait_for(opening, 10)
    assert (tmp_path / "plain").read_bytes() == LARGE
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o444


async def test_what_was_sealed_for_something_else_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(seal(KEY, purpose("input", "b"), b"x"))
    one = Seal(KEY, tmp_path)
    with pytest.raises(SealBrokenError):
        await one.open_file(tmp_path / "sealed", INPUT, tmp_path / "plain", at_once)


def test_an_outcome_says_nothing_but_how_it_ended(tmp_path: Path) -> None:
    outcome = TaskOutcome(
        task=3,
        state="failed",
        value=b"secret",
        stderr_tail=b"secret",
        error="ValueError: secret",
        started_at=0.0,
        duration_s=1.0,
    )
    out = Seal(KEY, tmp_path).outcome(outcome)
    assert b"secret" not in out.value + out.stderr_tail
    assert out.error == "its error is sealed"
    result = TaskResult(task=3, state="failed", value=out.value, stderr_tail=out.stderr_tail)
    opened = unseal_result(KEY, result)
    assert (opened.value, opened.stderr_tail) == (b"secret", b"secret")
    assert opened.error == "ValueError: secret"
    ended = Seal(KEY, tmp_path).outcome(outcome._replace(exit_code=1))
    assert ended.error is None


def test_an_output_is_sealed_without_leaving_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(LARGE)
    bound_to = purpose("output", 3, "out")
    plain = (tmp_path / "out").open("rb")
    with plain, Seal(KEY, tmp_path).file(bound_to, plain) as sealed:
        assert unseal(KEY, bound_to, sealed.read()) == LARGE
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

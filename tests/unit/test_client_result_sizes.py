"""What a lender says that it has left is fetched only as far as the job allows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from broker_world import ALICE, job_spec

from lender.client.errors import ContentFault
from lender.client.job import Job, Session
from lender.link.blobs import Reference
from lender.protocol.job import Limits
from lender.protocol.result import Output, TaskResult, ValueBlob
from lender.protocol.sealing import sealed_size

KIB = 1024
LIMITS = Limits(output_bytes=64 * KIB, scratch_bytes=128 * KIB)


class Contents:
    """Gives whatever is asked for."""

    async def fetch(self, blob: Reference) -> bytes:
        return bytes(blob.size_bytes)

    async def fetch_into(self, blob: Reference, path: Path) -> None:
        path.write_bytes(bytes(blob.size_bytes))  # noqa: ASYNC240 - little, and nobody waits


def a_job(**fields: object) -> Job:
    spec = job_spec(limits=LIMITS, outputs=("a", "b"), **fields)
    session: Any = SimpleNamespace(contents=Contents(), signer=ALICE)
    return Job(cast("Session", session), spec, b"")


def left(value_bytes: int, *outputs_bytes: int) -> TaskResult:
    named = zip("ab", outputs_bytes, strict=False)
    return TaskResult(
        task=0,
        state="succeeded",
        value_blob=ValueBlob(sha256="0" * 64, size_bytes=value_bytes),
        outputs=tuple(Output(name=name, sha256="0" * 64, size_bytes=one) for name, one in named),
    )


async def test_a_value_is_as_large_as_the_job_allows_and_no_larger() -> None:
    job = a_job()
    assert len(await job.value(left(64 * KIB))) == 64 * KIB
    for size_bytes in (64 * KIB + 1, 1 << 40, 10**400):
        with pytest.raises(ContentFault, match="the job allows 65536"):
            await job.value(left(size_bytes))


async def test_so_are_all_outputs_together(tmp_path: Path) -> None:
    job = a_job()
    assert len(await job.download(left(0, 100 * KIB, 28 * KIB), tmp_path)) == 2
    with pytest.raises(ContentFault, match="the job allows 131072"):
        await job.download(left(0, 100 * KIB, 28 * KIB + 1), tmp_path / "other")
    assert not (tmp_path / "other").exists()


async def test_what_is_sealed_may_be_larger_by_its_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job()
    opened = SimpleNamespace(value=lambda _, content: content)
    monkeypatch.setattr(job, "_seal", opened)
    sealed_bytes = sealed_size(64 * KIB)
    assert len(await job.value(left(sealed_bytes))) == sealed_bytes
    with pytest.raises(ContentFault, match="the job allows"):
        await job.value(left(2 * sealed_bytes))

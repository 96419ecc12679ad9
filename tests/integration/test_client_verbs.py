"""The submitter's verbs as a person types them: what comes out, where, and the exit codes."""

import asyncio
import json
import os
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_broker import FakeBroker, echo, fake_broker

from lender.cli import waiting
from lender.cli.connect import LeftBehind
from lender.client import Client, Terminal
from lender.client.keys import create_key
from lender.link.embedded import EmbeddedServer
from lender.protocol.job import Array, JobSpec
from lender.protocol.result import TaskResult

LENDER = Path(sys.executable).parent / "lender"
TIME_S = 30


@dataclass(frozen=True)
class Said:
    code: int
    out: bytes
    err: str


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "submitter.nk"
    create_key(path, bytes(range(32)))
    return path


@pytest.fixture
def shell(nats: EmbeddedServer, key: Path, tmp_path: Path) -> "Shell":
    folder = tmp_path / "shell"
    folder.mkdir()
    return Shell(folder, {**os.environ, "LENDER_URL": nats.url, "LENDER_KEY": str(key)})


@dataclass(frozen=True)
class Shell:
    folder: Path
    environment: dict[str, str]

    async def __call__(self, *words: str, **environment: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            LENDER,
            *words,
            cwd=self.folder,
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(TIME_S):
            out, err = await process.communicate()
        return Said(process.returncode or 0, out, err.decode())


async def forget(_broker: FakeBroker, _spec: JobSpec) -> None:
    """The job goes on forever."""


async def test_a_value_comes_out_byte_for_byte(nats: EmbeddedServer, shell: Shell) -> None:
    value = bytes(range(256)) * 3

    async def binary(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.succeed(spec, value, stderr_tail=b"a warning")

    async with fake_broker(nats.url, binary):
        said = await shell("submit", "--", "tool", "--flag")
    assert said == Said(0, value, "a warning\n")


async def test_the_exit_code_is_the_tasks(nats: EmbeddedServer, shell: Shell) -> None:
    async def fail(broker: FakeBroker, spec: JobSpec) -> None:
        code = int(spec.argv[0])
        result = TaskResult(
            task=0, state="failed", exit_code=code or None, limit=None if code else "memory"
        )
        await broker.finish(spec, "failed", result=result, tasks_failed=1, tasks_total=1)

    async with fake_broker(nats.url, fail):
        said = await shell("submit", "--", "7")
        assert said.code == 7
        assert "failed with exit code 7" in said.err
        said = await shell("submit", "--", "0")
        assert said.code == 1
        assert "raise the memory limit" in said.err


async def test_a_rejected_job_names_the_field(nats: EmbeddedServer, shell: Shell) -> None:
    async def reject(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.finish(spec, "rejected", field="program", reason="not a wasm module")

    async with fake_broker(nats.url, reject):
        said = await shell("submit", "--", "x")
    assert said.code == 1
    assert "program: not a wasm module" in said.err


async def test_a_file_behind_the_command_travels(nats: EmbeddedServer, shell: Shell) -> None:
    (shell.folder / "file.bin").write_bytes(b"content")

    async with fake_broker(nats.url, echo) as broker:
        said = await shell("submit", "--", "sha256sum", "file.bin", "--in", "file.bin")
        assert (said.code, said.out) == (0, b"sha256sum file.bin")
        (one,) = broker.jobs[0].inputs
    assert (one.name, one.size_bytes) == ("file.bin", 7)


async def test_outputs_and_json(nats: EmbeddedServer, shell: Shell) -> None:
    async def produce(broker: FakeBroker, spec: JobSpec) -> None:
        (one,) = spec.inputs
        output = one.model_dump() | {"name": "sub/out"}
        await broker.succeed(spec, b"text", outputs=(output,))

    (shell.folder / "in").write_bytes(b"content")
    async with fake_broker(nats.url, produce):
        said = await shell(
            *("submit", "--json", "--into", "deep", "--in", "in", "--out", "sub/out", "--", "x")
        )
    assert (shell.folder / "deep" / "sub" / "out").read_bytes() == b"content"
    fields = json.loads(said.out)
    assert fields["schema"] == "lender.result/1"
    assert (fields["state"], fields["value"], fields["outputs"]) == (
        "succeeded",
        "text",
        ["deep/sub/out"],
    )


async def test_map_prints_values_in_task_order(nats: EmbeddedServer, shell: Shell) -> None:
    async def work(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.chunk(spec, [3, 2])
        await broker.chunk(spec, [0])
        await broker.chunk(spec, [1, 4])
        await broker.finish(spec, "succeeded", tasks_succeeded=5, tasks_total=5)

    async with fake_broker(nats.url, work):
        said = await shell("map", "--array", "0-4", "--", "echo", "{task}")
        assert (said.code, said.out) == (0, b"v0\nv1\nv2\nv3\nv4\n")
        assert "5/5" in said.err
        said = await shell("map", "--array", "0-4", "--into", "values", "--", "echo", "{task}")
        assert (said.code, said.out) == (0, b"")
        assert [(shell.folder / "values" / str(n)).read_bytes() for n in range(5)] == [
            b"v%d\n" % n for n in range(5)
        ]
        said = await shell("map", "--json", "--array", "0-4", "--", "echo", "{task}")
        tasks = [json.loads(line)["task"] for line in said.out.splitlines()]
        assert tasks == [0, 1, 2, 3, 4]


async def test_a_job_is_listed_fetched_and_cancelled(nats: EmbeddedServer, shell: Shell) -> None:
    async with fake_broker(nats.url, forget) as broker:
        said = await shell("submit", "--no-wait", "--json", "--name", "nightly", "--", "x")
        job = json.loads(said.out)["job"]
        listed = await shell("jobs")
        assert job in listed.out.decode()
        assert "2 machines match it" in listed.out.decode()
        assert json.loads((await shell("jobs", "--json")).out)["jobs"][0]["name"] == "nightly"
        why = (await shell("why", job)).out.decode()
        assert why.startswith(f"○ waits: 2 machines match it: 2 busy\n  {job}  nightly\n")
        assert (await shell("why", job, "--task", "0")).out.decode() == (
            f"○ task 0 waits: rests\n  {job}: waits: 2 machines match it: 2 busy\n"
        )
        told = json.loads((await shell("why", job, "--task", "0", "--json")).out)
        assert told["schema"] == "lender.why-job/1"
        assert told["task"] == {"task": 0, "state": "waiting", "why": "rests"}
        waiting_ = await shell("get", job)
        assert waiting_.code == 1
        assert "has not ended" in waiting_.err
        cancelled = await shell("cancel", job)
        assert (cancelled.code, cancelled.out.decode()) == (0, f"cancelled {job}\n")
        again = json.loads((await shell("cancel", "--json", job)).out)
        assert again == {"schema": "lender.cancel/1", "job": job, "state": "cancelled"}
        assert (await shell("get", job)).code == 1
        broker.on_job = echo
        job = (await shell("submit", "--no-wait", "--", "done")).out.decode().strip()
        assert (await shell("get", "--wait", job)).out == b"done"
        assert "had ended before: succeeded" in (await shell("cancel", job)).err
        assert "no job nosuchjob" in (await shell("get", "nosuchjob")).err
        for unknown in ("x", f"{job[:-4]}0000"):
            for verb in (("jobs",), ("why", "--task", "0")):
                said = await shell(*verb, unknown)
                assert (said.code, said.out) == (1, b"")
                assert f"no job {unknown}" in said.err
        said = await shell("why", job, "--task", "1")
        assert (said.code, said.err) == (2, f"lender why: job {job} has no task 1\n")


async def test_what_failed_is_named_and_runs_once_more(nats: EmbeddedServer, shell: Shell) -> None:
    async def on_job(broker: FakeBroker, spec: JobSpec) -> None:
        tasks = [task for first, n in spec.task_ranges for task in range(first, first + n)]
        again = spec.array is not None and spec.array.tasks
        good = tasks if again else [task for task in tasks if task not in (1, 2, 5)]
        await broker.chunk(spec, good)
        if again:
            counts = {"tasks_succeeded": 3, "tasks_total": 3}
            await broker.finish(spec, "succeeded", **counts)
        else:
            counts = {"tasks_succeeded": 5, "tasks_failed": 3, "tasks_total": 8}
            await broker.finish(spec, "failed", **counts, failed_tasks=((1, 2), (5, 1)))

    async with fake_broker(nats.url, on_job) as broker:
        said = await shell("map", "--array", "0-7", "--no-wait", "--", "true")
        job = said.out.decode().strip()
        told = await shell("jobs", job)
        assert b"tasks      8: 0 succeeded, 0 failed, 0 run, 8 wait" in told.out
        said = await shell("retry", "--json", job)
        assert said.code == 0, said.err
        assert "3 tasks" in said.err
        again = broker.jobs[-1]
        assert json.loads(said.out) == {
            "schema": "lender.job/1",
            "job": again.id,
            "retries": job,
        }
        assert again.array == Array(count=8, tasks=((1, 2), (5, 1)))
        said = await shell("get", "--wait", again.id)
        assert said.out == b"v1\nv2\nv5\n"
        said = await shell("retry", again.id)
        assert said.code == 1
        assert "no task" in said.err


async def test_what_is_missing_is_named(shell: Shell, tmp_path: Path) -> None:
    said = await shell("submit", "--", "x", LENDER_URL="nats://127.0.0.1:1")
    assert said.code == 5
    assert "lender-broker serve --embedded" in said.err
    said = await shell("submit", "--", "x", LENDER_KEY=str(tmp_path / "none"))
    assert said.code == 1
    assert "lender keygen" in said.err
    said = await shell("submit", "--in", "none", "--", "x")
    assert said.code == 1
    assert "can't read none" in said.err
    for words, told in {
        ("ls", "-l"): "-l; what belongs to the command goes behind --: lender submit -- CMD ARGS",
        ("--priority", "2000", "--", "x"): "--priority: Input should be less than",
        ("--delay", "8d", "--", "x"): "--delay: must be before not_after",
    }.items():
        said = await shell("submit", *words)
        assert (said.code, said.out) == (2, b"")
        assert told in said.err


async def test_keygen_makes_a_private_key_once(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.nk"
    said = await shell("keygen", "--key", str(path))
    public_key = said.out.decode().strip()
    assert said.code == 0
    assert f"lender-broker allow NAME {public_key}" in said.err
    assert f"lender grant {public_key} --workload command --expires 30d" in said.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = await shell("keygen", "--key", str(path), "--json")
    assert again.code == 1
    assert "not overwritten" in again.err


async def interrupted(client: Client, times: int) -> tuple[str, asyncio.Task[Terminal]]:
    """Wait for a new job as the verbs do, and press Ctrl-C."""
    job = await client.submit(["x"])
    attending = asyncio.create_task(waiting.attended(client, job, job.ended()))
    for _ in range(times):
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
    return job.id, attending


async def test_one_interrupt_leaves_the_job_alone(
    nats: EmbeddedServer,
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(waiting, "LEAVE_AFTER_S", 0.3)
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        job, attending = await interrupted(client, 1)
        with pytest.raises(LeftBehind):
            await attending
        assert await (await client.get(job)).terminal() is None
    said = capsys.readouterr().err
    assert f"lender get --wait {job}" in said
    assert f"lender cancel {job}" in said


async def test_two_interrupts_cancel_the_job(nats: EmbeddedServer, key: Path) -> None:
    async with fake_broker(nats.url, forget), Client(nats.url, key) as client:
        job, attending = await interrupted(client, 2)
        with pytest.raises(LeftBehind):
            await attending
        terminal = await (await client.get(job)).terminal()
        assert terminal is not None
        assert terminal.state == "cancelled"

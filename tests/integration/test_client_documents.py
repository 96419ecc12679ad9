"""The documents say what is: their examples run, the schemas are those of the code."""

import asyncio
import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path

from fake_broker import FakeBroker, fake_broker

from lender.client.keys import create_key
from lender.link.embedded import EmbeddedServer
from lender.protocol.job import JobSpec
from lender.protocol.result import TaskResult

DOCS = Path(__file__).parents[2] / "docs"
README = Path(__file__).parents[2] / "lender" / "client" / "README.md"


async def test_the_example_runs_as_printed(nats: EmbeddedServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "protocol.md").read_text(), re.DOTALL)
    create_key(tmp_path / ".config" / "lender" / "submitter.nk", bytes(32))

    async def answer(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.succeed(spec, f"{spec.inputs[0].sha256}  {spec.argv[1]}\n".encode())

    async with fake_broker(nats.url, answer):
        output = await run_program(program, nats.url, tmp_path)
    digest = hashlib.sha256(b"hello, lender\n").hexdigest()
    assert output.split() == ["succeeded", digest, "hello.txt"]


async def test_the_readmes_example_runs_as_printed(nats: EmbeddedServer, tmp_path: Path) -> None:
    # The others run on a real fleet: acceptance/test_client_readme.py.
    program, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    create_key(tmp_path / ".config" / "lender" / "submitter.nk", bytes(32))
    (tmp_path / "file.bin").write_bytes(b"content")

    async def run(broker: FakeBroker, spec: JobSpec) -> None:
        if spec.array:
            await broker.chunk(spec, list(range(spec.task_count)))
            counts = {"tasks_succeeded": spec.task_count, "tasks_total": spec.task_count}
            await broker.finish(spec, "succeeded", **counts)
        elif spec.inputs:
            await broker.succeed(spec, b"a digest")
        else:
            result = TaskResult(task=0, state="failed", exit_code=3)
            await broker.finish(spec, "failed", result=result, tasks_failed=1, tasks_total=1)

    async with fake_broker(nats.url, run):
        output = await run_program(program, nats.url, tmp_path)
    assert output.startswith("a digest\n")
    assert output.endswith("exit code 3: read its standard error 3\n")
    assert output.count("\n") == 103


async def run_program(program: str, url: str, home: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={"HOME": str(home), "LENDER_URL": url, "PATH": os.environ["PATH"]},
        cwd=home,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


def test_the_schemas_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("schemas", DOCS / "generate_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.stale(DOCS / "schemas") == [], "run make schemas"

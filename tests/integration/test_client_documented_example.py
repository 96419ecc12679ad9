"""docs/protocol.md says what is: its example runs, its schemas are those of the code."""

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

DOCS = Path(__file__).parents[2] / "docs"


async def test_the_example_runs_as_printed(nats: EmbeddedServer, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "protocol.md").read_text(), re.DOTALL)
    create_key(tmp_path / ".config" / "lender" / "submitter.nk", bytes(32))

    async def answer(broker: FakeBroker, spec: JobSpec) -> None:
        await broker.succeed(spec, f"{spec.inputs[0].sha256}  {spec.argv[1]}\n".encode())

    async with fake_broker(nats.url, answer):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            env={"HOME": str(tmp_path), "LENDER_URL": nats.url, "PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    digest = hashlib.sha256(b"hello, lender\n").hexdigest()
    assert output.decode().split() == ["succeeded", digest, "hello.txt"]


def test_the_schemas_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("schemas", DOCS / "generate_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.stale(DOCS / "schemas") == [], "run make schemas"

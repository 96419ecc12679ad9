"""`make demo`: the main job, live, on this machine and loopback only.

Three machines lend to one submitter. They render a picture tile by tile while one owner pauses
and another revokes; then one hashes a file of this repository. Everything is cleaned up.
"""

import asyncio
import hashlib
import os
import pwd
import shutil
import sys
import tempfile
import time
from pathlib import Path

from deploy.local.bars import Bars
from deploy.local.fleet import ORDINARY_USER, Fleet, FleetError, Lender, wait_until
from deploy.local.stage import end_on_sigterm, temporary_folder
from lender.client import catalogue
from lender.client.client import Client
from lender.client.job import Job
from lender.protocol.job import Limits
from workloads.render import picture

MACHINES = ("desk", "attic", "studio")
WIDTH, HEIGHT, COLUMNS, ROWS, DETAIL = 1280, 720, 16, 12, 2
PAUSE_AT, REVOKE_AT, RESUME_AT = 0.15, 0.35, 0.6
ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "build" / "demo" / "picture.png"


def main() -> int:
    """Run the demo; 0 when everything that it promises held."""
    end_on_sigterm()
    started = time.monotonic()
    try:
        with temporary_folder("demo") as folder, Fleet(folder, MACHINES) as fleet:
            _introduce(fleet)
            good = asyncio.run(_show(fleet))
            _receipts(fleet)
    except KeyboardInterrupt:
        print("\ninterrupted; everything was stopped and removed", flush=True)
        return 130
    except FleetError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"\nDone in {time.monotonic() - started:.1f} s; every process and file is gone but")
    print(f"the picture: {PICTURE}")
    return 0 if good else 1


def _introduce(fleet: Fleet) -> None:
    print(f"One NATS server and one broker at {fleet.url}; three machines, each with its owner:")
    for lender in fleet.lenders.values():
        print(f"  {lender.name:<8} lenderd pid {lender.pid}; its owner granted work to `demo`")
    if os.geteuid() == 0:
        user = pwd.getpwnam(ORDINARY_USER).pw_name
        print(f"  (started as root: the lenders became {user}, sandboxes never run as root)")


async def _show(fleet: Fleet) -> bool:
    async with Client(fleet.url, fleet.key) as client:
        keys = await asyncio.to_thread(_names_by_key, fleet)
        interrupted = await _render(client, keys, fleet, with_owners=True)
        print("\nThe same picture once more, without interruption:")
        plain = await _render(client, keys, fleet, with_owners=False)
        identical = interrupted == plain
        print(f"  bit-identical: {'yes' if identical else 'NO'}")
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        picture.write_png(PICTURE, WIDTH, HEIGHT, interrupted)
        print(f"  the picture: {PICTURE}")
        return await _file_job(client, keys) and identical


def _names_by_key(fleet: Fleet) -> dict[str, str]:
    return {str(one.status()["lender"]): one.name for one in fleet.lenders.values()}


async def _render(
    client: Client, keys: dict[str, str], fleet: Fleet, *, with_owners: bool
) -> bytes:
    tiles = COLUMNS * ROWS
    render = catalogue.load()["render"]
    assert render.module is not None
    started = time.monotonic()
    job = await client.submit(
        [str(number) for number in (WIDTH, HEIGHT, COLUMNS, ROWS, DETAIL)],
        wasm=render.module,
        workload="render",
        array=tiles,
        name="picture" if with_owners else "picture again",
        limits=Limits(memory_bytes=render.limits.memory_bytes),
    )
    print(f"\nJob {job.id}: {WIDTH}x{HEIGHT} pixels, {tiles} tiles, a WebAssembly workload")
    bars = Bars(list(keys.values()), tiles)
    owners = asyncio.create_task(_owners(fleet, bars, tiles)) if with_owners else None
    values: dict[int, bytes] = {}
    async for record in job.results():
        if record.result.state != "succeeded":
            raise FleetError(f"tile {record.result.task}: {record.result.error}")
        values[record.result.task] = record.result.value
        bars.count(keys[record.lender])
    if owners:
        await owners
    print(f"  {len(values)} of {tiles} tiles, each once, in {time.monotonic() - started:.1f} s")
    return picture.assemble(WIDTH, HEIGHT, COLUMNS, ROWS, values)


async def _owners(fleet: Fleet, bars: Bars, tiles: int) -> None:
    """What two of the owners do meanwhile."""
    attic, studio = fleet.lenders["attic"], fleet.lenders["studio"]
    await bars.reached(tiles * PAUSE_AT)
    await asyncio.to_thread(wait_until, attic.busy, "work on attic", 5.0)
    await _owner_says(bars, attic, "paused", "pause")
    await bars.reached(tiles * REVOKE_AT)
    await asyncio.to_thread(wait_until, studio.busy, "work on studio", 5.0)
    await _owner_says(bars, studio, "revoked", "revoke", "--all")
    await bars.reached(tiles * RESUME_AT)
    await _owner_says(bars, attic, "", "resume")


async def _owner_says(bars: Bars, lender: Lender, note: str, *verb: str) -> None:
    said = await asyncio.to_thread(lender.owner, *verb)
    text = (said.stdout + said.stderr).strip().replace("\n", "\n    ")
    bars.say(f"  {lender.name}$ lender {' '.join(verb)}\n    {text}")
    bars.note(lender.name, note)


async def _file_job(client: Client, keys: dict[str, str]) -> bool:
    """A job over a real file: input in, output out."""
    source = ROOT / "README.md"
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    if shutil.which("bwrap"):
        print(f"\nA command over {source.name}, in the bubblewrap sandbox:")
        script = "sha256sum README.md > digest.txt && wc -w < README.md"
        job = await client.submit(
            ["sh", "-c", script], inputs=[source], outputs=["digest.txt"], name="digest"
        )
        digest = await _output(job)
    else:
        print("\nbubblewrap is not installed (Debian package: bubblewrap), so no commands are run;")
        print(f"the checksum workload in WebAssembly over {source.name} instead:")
        module = catalogue.load()["checksum"].module
        assert module is not None
        job = await client.submit(
            ["README.md"], wasm=module, workload="checksum", inputs=[source], name="checksum"
        )
        digest = (await job.result(timeout_s=30)).value.decode()
    terminal = await job.ended(timeout_s=30)
    print(f"  on {keys.get(terminal.lender or '', 'some machine')}: {digest.strip()}")
    matches = digest.split()[:1] == [expected]
    print(f"  the same digest as here: {'yes' if matches else 'NO'}")
    return matches


async def _output(job: Job) -> str:
    terminal = (await job.result(timeout_s=30)).terminal
    assert terminal.result is not None
    with tempfile.TemporaryDirectory() as folder:
        paths = await job.download(terminal.result, Path(folder))
        return paths[0].read_text()


def _receipts(fleet: Fleet) -> None:
    print("\nWhat each owner can read afterwards (lender log):")
    for lender in fleet.lenders.values():
        print(f"  {lender.name}")
        lines = lender.owner("log").stdout.strip().splitlines()
        for line in lines[-6:]:
            print(f"    {line}")


if __name__ == "__main__":
    sys.exit(main())

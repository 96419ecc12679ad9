"""Attacks by images: by what one says of itself, before anything of it runs."""

import images
import pytest
from arena import Arena, in_one_loop
from attacks import told, tried_in
from images import layout, link, tar

from lender.sandbox.files import rootfs, scratch
from lender.sandbox.plan import Runtime
from lender.sandbox.port import PrepareFailedError

pytestmark = in_one_loop

# Where the container runtime could have the host's files open while it starts the command.
FOLDERS = [
    *(f"/proc/self/fd/{number}" for number in range(3, 10)),
    *("/proc/1/cwd", "/proc/1/root", "/proc/self/fd/7/../../../.."),
]
# From where it stands up to the top, and the top itself.
CLIMB = """
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do cd .. || exit 3; done
ls; echo --; ls /; cat .@HOME@/notes.txt 2>/dev/null
"""


@pytest.fixture(scope="module")
def layer() -> bytes:
    return images.of_host_programs("sh", "ls", "cat")


@pytest.mark.timeout(180)  # a container for each
@tried_in("oci")
async def test_the_folder_of_an_image_leads_nowhere(
    arena: Arena, runtime: Runtime, layer: bytes
) -> None:
    """A descriptor that is left open by whoever makes the container leads out of it.

    By a link, which no look at its name tells from an honest folder.
    """
    script = CLIMB.replace("@HOME@", str(arena.owner.home))
    cache = arena.workshop.private(rootfs.FOLDER)
    stood = 0
    try:
        for folder in ("/bin", *FOLDERS):
            image = layout(layer, tar(link("app", folder)), said={"WorkingDir": "/app"})
            plan = arena.plan(runtime)._replace(
                program=arena.workshop.file("image", image), argv=("sh", "-c", script)
            )
            sandbox = arena.workshop.sandbox(plan)
            try:
                await sandbox.prepare()
            except PrepareFailedError:
                continue
            outcome = await arena.run(sandbox)
            here, _, top = outcome.value.decode().partition("--\n")
            assert here == top, f"{folder}: {told(outcome)}"
            stood += bool(here)
            await sandbox.close()
    finally:
        scratch.remove(cache)
    assert stood > 0, "the first one is an honest one"

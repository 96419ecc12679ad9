"""A process job that brings its own root file system sees that and nothing of the machine's."""

from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from images import file, link, tar
from sandboxes import LIMITS, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox.files import rootfs, scratch
from lender.sandbox.files.tar_tree import MOUNT_POINTS
from lender.sandbox.plan import SandboxPlan
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.walls import enter

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = [
    needs_bubblewrap,
    pytest.mark.skipif(
        not Path(enter.__file__).with_name("enter").exists(),
        reason="enter is not built: make walls",
    ),
]
PROGRAMS = ("sh", "cat", "ls", "sleep", "touch")


@pytest.fixture(autouse=True)
def cache(workshop: Workshop) -> Iterator[None]:
    made = workshop.private(rootfs.FOLDER)
    yield
    scratch.remove(made)


def plan(workshop: Workshop, archive: bytes, script: str) -> SandboxPlan:
    made = workshop.plan("process", "")._replace(program=workshop.file("archive", archive))
    return made._replace(argv=("sh", "-c", script))


async def test_it_sees_its_own_root(workshop: Workshop) -> None:
    content = images.of_host_programs(*PROGRAMS)
    script = (
        "echo /*; cat /etc/own; touch here /tmp/x; echo /work/* /tmp/*; echo $PATH $HOME;"
        " touch /x /bin/x /etc/own"
    )
    archive = tar(file("etc/own", b"own"), file("work/x"), link("tmp", "/etc"))
    sandbox = workshop.sandbox(plan(workshop, images.layout(content, archive), script))
    await sandbox.prepare()
    outcome = await sandbox.run(0)
    top, rest = outcome.value.decode().split("\n", 1)
    places = {name.split("/")[0] for name in images.names(content)}
    assert set(top.split()) == {f"/{name}" for name in places | {"dev", "etc", *MOUNT_POINTS}}
    assert rest == "own/work/here /tmp/x\n/usr/bin:/bin /work\n"
    assert outcome.stderr_tail.count(b"touch: ") == 3
    assert [path.name for path in workshop.scratch.iterdir()] == ["here"]


async def test_what_is_no_root_file_system_is_refused(workshop: Workshop) -> None:
    with pytest.raises(PrepareFailedError) as caught:
        await workshop.sandbox(plan(workshop, b"nonsense", "true")).prepare()
    assert (caught.value.invalid, caught.value.field) == (True, "program")


async def test_limits_hold_in_there_as_well(workshop: Workshop) -> None:
    content = images.of_host_programs(*PROGRAMS)
    made = plan(workshop, content, "while cat /dev/zero; do :; done > big")
    sandbox = workshop.sandbox(made._replace(limits=LIMITS))
    await sandbox.prepare()
    assert (await sandbox.run(0)).limit == "disk"

"""The oci runtime: containers behind the same walls as processes, stopped and cleared alike."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from images import file, folder, layout, link, tar
from sandboxes import LIMITS, USER, Workshop, open_folder, until, workshop

from lender.sandbox.files import outputs, rootfs, scratch
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, SandboxPlan, TaskOutcome
from lender.sandbox.port import PrepareFailedError, SandboxGoneError
from lender.sandbox.processes import cgroup, stopping, subtree, tree
from lender.sandbox.processes.stopping import Standing
from lender.sandbox.runtimes import contained
from lender.sandbox.walls import seccomp

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = pytest.mark.skipif(
    shutil.which("crun", path=contained._SEARCH) is None, reason="crun is not installed"
)
PROGRAMS = ("sh", "cat", "env", "id", "ls", "mkdir", "readlink", "setsid", "sleep", "touch")
needs_python = pytest.mark.skipif(
    shutil.which("python3", path="/usr/bin") is None, reason="no python3 in /usr/bin"
)


@pytest.fixture(scope="module")
def layer() -> bytes:
    return images.of_host_programs(*PROGRAMS)


class Harbour:
    """Makes plans for containers in a workshop."""

    def __init__(self, workshop: Workshop, layer: bytes) -> None:
        self.workshop = workshop
        self.layer = layer
        workshop.private(rootfs.FOLDER)

    def plan(
        self,
        *argv: str,
        image: bytes | None = None,
        inputs: dict[str, Path] | None = None,
        env: dict[str, str] | None = None,
        limits: Limits = LIMITS,
    ) -> SandboxPlan:
        """A plan with an image of this machine's own programs, or another one."""
        content = layout(self.layer, compress=False) if image is None else image
        return self.workshop.plan("process", "", inputs=inputs, env=env, limits=limits)._replace(
            runtime="oci", program=self.workshop.file("image", content), argv=argv
        )

    def host_plan(self, *argv: str, limits: Limits = LIMITS) -> SandboxPlan:
        """A plan without an image: the host's own programs, as the self-test runs them."""
        return self.plan(*argv, limits=limits)._replace(program=None)

    async def prepared(self, plan: SandboxPlan) -> LeaseSandbox:
        made = self.workshop.sandbox(plan)
        await made.prepare()
        return made

    async def run(self, plan: SandboxPlan, task: int = 0) -> TaskOutcome:
        return await (await self.prepared(plan)).run(task)

    async def shell(self, script: str, limits: Limits = LIMITS) -> TaskOutcome:
        return await self.run(self.plan("sh", "-c", script, limits=limits))


@pytest.fixture
def harbour(workshop: Workshop, layer: bytes) -> Iterator[Harbour]:
    yield Harbour(workshop, layer)
    scratch.remove(workshop.folder / rootfs.FOLDER)


async def test_a_task_ends_with_its_value(harbour: Harbour) -> None:
    sandbox = await harbour.prepared(harbour.plan("sh", "-c", "printf %s-{task} hello"))
    for task in (4, 0):
        outcome = await sandbox.run(task)
        assert (outcome.task, outcome.state, outcome.exit_code) == (task, "succeeded", 0), outcome
        assert (outcome.value, outcome.stderr_tail) == (f"hello-{task}".encode(), b"")
        assert (outcome.limit, outcome.error, outcome.network_attempts_blocked) == (None, None, 0)
        assert outcome.cpu_s > 0


async def test_the_images_own_command_environment_and_folder(harbour: Harbour) -> None:
    said = {
        "Entrypoint": ["sh", "-c", 'cat data; echo "$A $B $HOME $LENDER_TASK $0"'],
        "Cmd": ["from-the-image"],
        "Env": ["PATH=/opt/none:/bin", "A=image", "B=image", "HOME=/root"],
        "WorkingDir": "/app",
        "User": "root",
    }
    image = layout(harbour.layer, tar(folder("app"), file("app/data", b"data\n")), said=said)
    outcome = await harbour.run(harbour.plan(image=image, env={"B": "job"}), 3)
    assert outcome.value.decode() == "data\nimage job /work 3 from-the-image\n", outcome
    own = await harbour.run(harbour.plan("sh", "-c", "echo mine", image=image))
    assert own.value == b"mine\n"


async def test_an_image_without_a_command_needs_the_jobs(harbour: Harbour) -> None:
    with pytest.raises(PrepareFailedError) as caught:
        await harbour.prepared(harbour.plan())
    assert (caught.value.invalid, caught.value.field) == (True, "argv")


async def test_what_is_no_image_is_refused(harbour: Harbour) -> None:
    for content in (harbour.layer, b"nonsense", tar(file("manifest.json", b"{}"))):
        with pytest.raises(PrepareFailedError) as caught:
            await harbour.prepared(harbour.plan("sh", image=content))
        assert (caught.value.invalid, caught.value.field) == (True, "program")


async def test_a_docker_archive_runs_too(harbour: Harbour) -> None:
    archive = images.docker_archive(harbour.layer, said={"Cmd": ["sh", "-c", "echo docker"]})
    assert (await harbour.run(harbour.plan(image=archive))).value == b"docker\n"


async def test_a_failed_task_keeps_its_exit_code_and_stderr(harbour: Harbour) -> None:
    outcome = await harbour.shell("printf bad >&2; exit 3")
    assert (outcome.state, outcome.exit_code, outcome.stderr_tail) == ("failed", 3, b"bad")
    assert (outcome.limit, outcome.error) == (None, None)
    killed = await harbour.shell("kill -9 $$")
    assert (killed.state, killed.exit_code) == ("failed", 137)


async def test_a_task_ends_with_its_first_process(harbour: Harbour) -> None:
    script = (
        "sleep 3600 & setsid sleep 3600 & (sh -c 'sleep 3600 & sleep 3600' &); echo done; exit 7"
    )
    outcome = await harbour.shell(script)
    assert (outcome.value, outcome.exit_code, outcome.limit) == (b"done\n", 7, None), outcome
    assert outcome.duration_s < LIMITS.time_s
    (root,) = harbour.workshop.roots
    assert tree.members([root]) == (root,)


async def test_a_command_that_is_not_there_is_named(harbour: Harbour) -> None:
    for name in ("no-such-command", "/no/such/command"):
        outcome = await harbour.run(harbour.plan(name))
        assert (outcome.state, outcome.error) == ("failed", f"command not found: {name}"), outcome
    outcome = await harbour.run(harbour.plan("/bin"))
    assert (outcome.state, outcome.error) == ("failed", "command not executable: /bin"), outcome


async def test_inputs_are_there_and_outputs_can_be_collected(harbour: Harbour) -> None:
    source = harbour.workshop.file("blob", b"content of the input")
    script = "[ -e out ] && exit 4; touch d/in.txt && exit 5; cat d/in.txt > out"
    plan = harbour.plan("sh", "-c", script, inputs={"d/in.txt": source})
    sandbox = await harbour.prepared(plan)
    for _ in range(2):
        assert (await sandbox.run(0)).exit_code == 0
        (collected,) = outputs.collect(harbour.workshop.scratch, ["out"], 1000)
        with os.fdopen(collected.fd, "rb") as content:
            assert content.read() == b"content of the input"
    assert source.read_bytes() == b"content of the input"
    await sandbox.close()
    assert list(harbour.workshop.scratch.iterdir()) == []


# Walls.


async def test_it_sees_its_image_and_itself_and_nothing_else(harbour: Harbour) -> None:
    script = (
        "ls -A /; echo --; ls -A /work /tmp /dev/shm; echo --; ls /proc | while read -r name; do"
        " case $name in [0-9]*) read -r comm </proc/$name/comm; echo $comm;; esac; done;"
        " echo --; ls -A /dev; echo --; ls /proc/self/fd; echo --; id -u; id -g;"
        " cat /proc/1/environ"
    )
    outcome = await harbour.shell(script)
    top, empty, processes, devices, fds, me = outcome.value.decode().split("--\n")
    places = {name.split("/")[0] for name in images.names(harbour.layer)}
    assert set(top.split()) == places | {"dev", "proc", "tmp", "work"}
    assert set(empty.split()) == {"/dev/shm:", "/tmp:", "/work:"}
    assert {"crun", "sh"} <= set(processes.split()) <= {"crun", "sh", "ls"}
    wanted = {"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"}
    assert wanted <= set(devices.split()) <= wanted | {"tty", "ptmx", "core", "lender-enter"}
    assert set(fds.split()) <= {"0", "1", "2", "3"}, "3 is the folder that ls reads"
    assert me == "65534\n65534\n"
    assert b"Permission denied" in outcome.stderr_tail, "/proc/1/environ"


async def test_nothing_but_its_own_places_can_be_written(harbour: Harbour) -> None:
    script = (
        "for place in / /bin /dev /proc /proc/self /proc/sys/kernel /tmp /dev/shm /work; do"
        " (: > $place/x) 2>/dev/null && echo $place; done;"
        "for name in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/self/autogroup"
        " /proc/self/oom_score_adj /proc/self/setgroups /proc/self/uid_map /bin/sh; do"
        " (: >> $name) 2>/dev/null && echo $name; done"
    )
    outcome = await harbour.shell(script)
    assert outcome.value.decode().split() == ["/tmp", "/dev/shm", "/work"], outcome


async def test_all_namespaces_are_its_own_and_no_privilege_is(harbour: Harbour) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    script = "for kind; do readlink /proc/self/ns/$kind; done; cat /proc/self/status"
    outcome = await harbour.run(harbour.plan("sh", "-c", script, "sh", *kinds))
    inside, status = outcome.value.decode().split("Name:")
    outside = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]  # noqa: PTH115 - the text
    assert len(inside.split()) == len(kinds)
    assert not set(inside.split()) & set(outside)
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    none = "0" * 16
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert fields[name] == none, name
    assert fields["NoNewPrivs"] == "1"
    if seccomp.program() is not None:
        assert (fields["Seccomp"], fields["Seccomp_filters"]) == ("2", "2")


@needs_python
@pytest.mark.skipif(seccomp.program() is None, reason="no filter for this processor")
async def test_the_filter_is_that_of_the_process_runtime(harbour: Harbour) -> None:
    code = """
import ctypes, errno, json, os, socket
def attempt(call, *arguments):
    try:
        call(*arguments)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
libc = ctypes.CDLL(None, use_errno=True)
def checked(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
print(json.dumps([
    attempt(socket.socket, 38, 5, 0),
    attempt(socket.socket, 40, 1, 0),
    attempt(checked, "unshare", 0x10000000),
    attempt(checked, "mount", None, b"/tmp", b"tmpfs", 0, None),
    attempt(checked, "inotify_init"),
    attempt(os.setsid),
    attempt(socket.socket),
]))
"""
    outcome = await harbour.run(harbour.host_plan("/usr/bin/python3", "-I", "-S", "-c", code))
    assert outcome.value == (
        b'["EAFNOSUPPORT", "EAFNOSUPPORT", "EPERM", "EPERM", "EPERM", "done", "done"]\n'
    ), outcome


async def test_it_stays_in_the_launchers_session(harbour: Harbour) -> None:
    """Its own would have a full share of the processor beside the owner's."""
    plan = harbour.plan("sh", "-c", "setsid sleep 3600 & : > ready; sleep 3600")
    sandbox = await harbour.prepared(plan)
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    (root,) = sandbox.root_pids
    sessions = {os.getsid(one.pid) for one in tree.members([root])}
    assert sessions == {os.getsid(harbour.workshop.launcher.pid)}
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running


@needs_python
async def test_tries_to_reach_a_network_are_counted(harbour: Harbour) -> None:
    code = """
import socket
for place in (("192.0.2.1", 80), ("198.51.100.7", 9)):
    try:
        socket.create_connection(place, 1)
    except OSError as error:
        print(error.errno)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 5)
"""
    outcome = await harbour.run(harbour.host_plan("/usr/bin/python3", "-I", "-S", "-c", code))
    assert (outcome.value, outcome.exit_code) == (b"101\n101\n", 0), outcome
    assert outcome.network_attempts_blocked == 2


async def test_links_in_the_image_lead_nowhere_outside(harbour: Harbour, open_folder: Path) -> None:
    secret = harbour.workshop.file("secret", b"the owner's")
    hostile = tar(
        link("work", str(open_folder)),
        link("tmp", str(open_folder)),
        link("secret", str(secret)),
        link("climbs", "../../../../../../.." + str(secret)),
    )
    image = layout(harbour.layer, hostile, compress=False)
    script = "cat /secret /climbs; ls -A /tmp/ /work/; echo x > /tmp/x; echo x > /work/x"
    outcome = await harbour.run(harbour.plan("sh", "-c", script, image=image))
    assert outcome.value == b"/tmp/:\n\n/work/:\n", outcome
    assert not (open_folder / "x").exists()
    assert (harbour.workshop.scratch / "x").read_text() == "x\n"


async def test_the_image_on_disk_is_unchanged(harbour: Harbour) -> None:
    plan = harbour.plan("sh", "-c", "touch /bin/x /x; mkdir /work/y; echo done")
    assert (await harbour.run(plan)).value == b"done\n"
    (root,) = (harbour.workshop.folder / rootfs.FOLDER).glob("*/root")
    names = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert names == images.names(harbour.layer)
    assert list(root.glob("work/*")) == []


# Limits.


@pytest.mark.parametrize(
    ("script", "limits", "named"),
    [
        ("while :; do echo flood; done", LIMITS._replace(output_bytes=10_000), "output"),
        ("while :; do :; done", LIMITS._replace(time_s=0.3), "time"),
        ("sleep 3600", LIMITS._replace(time_s=0.3), "time"),
        ("while cat /dev/zero; do :; done > big", LIMITS, "disk"),
        ("cat /dev/zero | cat > /dev/null & cat /dev/zero > /tmp/x; sleep 60", LIMITS, None),
    ],
)
async def test_a_limit_that_is_hit_is_named_and_the_next_task_runs(
    harbour: Harbour, script: str, limits: Limits, named: str | None
) -> None:
    if named is None:
        limits, named = limits._replace(time_s=1.0), "time"
    sandbox = await harbour.prepared(harbour.plan("sh", "-c", script, limits=limits))
    for task in (0, 1):
        outcome = await sandbox.run(task)
        assert (outcome.task, outcome.state, outcome.limit) == (task, "failed", named), outcome
        assert outcome.error == f"hit its {named} limit"


@needs_python
@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("x = []\nwhile True: x.append(bytearray(b'x' * 1000000))", "memory"),
        (
            (
                "import os, time\nfor _ in range(8):\n"
                " if os.fork() == 0: x = bytearray(b'x' * (20 << 20)); time.sleep(60)\n"
                "time.sleep(60)"
            ),
            "memory",
        ),
        (
            (
                "import os, time\ntry:\n while True:\n  if os.fork() == 0: time.sleep(60)\n"
                "except OSError: time.sleep(15); raise"
            ),
            "processes",
        ),
    ],
)
async def test_memory_and_processes_are_limited(harbour: Harbour, code: str, named: str) -> None:
    limits = LIMITS._replace(time_s=50.0)  # on a busy machine even that takes its time
    plan = harbour.host_plan("/usr/bin/python3", "-I", "-S", "-c", code, limits=limits)
    outcome = await harbour.run(plan)
    assert (outcome.state, outcome.limit) == ("failed", named), outcome


# Stopping.


async def standing(harbour: Harbour, script: str, **changed: object) -> LeaseSandbox:
    plan = harbour.plan("sh", "-c", f"{script} : > ready; while :; do sleep 0.05; done")
    return await harbour.prepared(plan._replace(**changed))


async def test_it_is_frozen_thawed_and_killed_with_all_below_it(harbour: Harbour) -> None:
    sandbox = await standing(harbour, "for i in 1 2 3; do setsid sleep 3600 & done;")
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    (root,) = sandbox.root_pids
    frozen = await asyncio.to_thread(tree.freeze, [root])
    assert frozen.verified
    assert all(tree.stopped(one) for one in tree.members([root]))
    assert len(tree.members([root])) >= 6
    assert (await asyncio.to_thread(tree.thaw, [root])).verified
    members = tree.members([root])
    assert (await asyncio.to_thread(tree.kill, [root])).verified
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(tree.alive(one) for one in members)


async def test_all_of_it_stays_in_the_leases_cgroup(harbour: Harbour, open_folder: Path) -> None:
    """Where one write freezes and kills it."""
    shop = harbour.workshop
    shop.cgroups = subtree.claim(open_folder / "state", shop.launcher.pid, USER)
    if shop.cgroups is None:
        pytest.skip("no cgroup v2 subtree is ours here: not root, and none delegated")
    sandbox = await standing(harbour, "for i in 1 2 3; do setsid sleep 3600 & done;")
    running = asyncio.create_task(sandbox.run(0))
    await until((shop.scratch / "ready").exists, "it runs")
    leaf = sandbox.cgroup
    assert leaf is not None

    def is_whole() -> bool:  # its shell may still be forking
        return {one.pid for one in tree.members(sandbox.root_pids)} == cgroup.pids(leaf)

    await until(is_whole, "all of it is in there")
    members = tree.members(sandbox.root_pids)
    standing_still = Standing(sandbox.root_pids, leaf)
    assert (await asyncio.to_thread(stopping.freeze, [standing_still])).verified
    assert "frozen 1" in (leaf / "cgroup.events").read_text()
    assert (await asyncio.to_thread(stopping.thaw, [standing_still])).verified
    assert (await asyncio.to_thread(stopping.kill, [standing_still])).verified
    with pytest.raises(SandboxGoneError):
        await running
    assert not any(tree.alive(one) for one in members)
    assert not leaf.exists()
    await sandbox.close()
    await shop.launcher.close()
    shop.cgroups.close()


async def test_asked_to_end_it_saves_what_it_has(harbour: Harbour) -> None:
    sandbox = await standing(harbour, "trap 'echo half > saved; exit 0' TERM;", grace_s=30.0)
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    os.kill(sandbox.root_pids[0].pid, signal.SIGTERM)
    outcome = await running
    assert (outcome.state, outcome.exit_code, outcome.terminated) == ("failed", 0, True), outcome
    assert (harbour.workshop.scratch / "saved").read_text() == "half\n"


async def test_asked_to_end_who_does_not_care_ends_at_once(harbour: Harbour) -> None:
    sandbox = await standing(harbour, "", grace_s=30.0)
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    os.kill(sandbox.root_pids[0].pid, signal.SIGTERM)
    outcome = await running
    assert (outcome.exit_code, outcome.terminated) == (143, True), outcome


async def test_asked_to_end_who_ignores_it_is_killed(harbour: Harbour) -> None:
    sandbox = await standing(harbour, "trap '' TERM; setsid sleep 3600 &", grace_s=0.3)
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    (root,) = sandbox.root_pids
    os.kill(root.pid, signal.SIGTERM)
    outcome = await running
    assert (outcome.exit_code, outcome.terminated) == (None, True), outcome
    assert tree.members([root]) == (root,)


@pytest.mark.parametrize("victim", ["runner", "launcher"])
async def test_it_dies_with_who_started_it(harbour: Harbour, victim: str) -> None:
    sandbox = await standing(harbour, "setsid sleep 3600 &")
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    (root,) = sandbox.root_pids
    members = tree.members([root])
    os.kill(root.pid if victim == "runner" else harbour.workshop.launcher.pid, signal.SIGKILL)
    await until(lambda: not any(tree.alive(one) for one in members), "all of it is dead", 10)
    with pytest.raises(SandboxGoneError):
        await running


async def test_a_kill_leaves_nothing_on_disk(harbour: Harbour, open_folder: Path) -> None:
    before = names_in_shared_places()
    sandbox = await standing(harbour, "")
    running = asyncio.create_task(sandbox.run(0))
    await until((harbour.workshop.scratch / "ready").exists, "it runs")
    await until(lambda: not names_in_shared_places() - before, "crun's state is not seen outside")
    await sandbox.close()
    with pytest.raises(SandboxGoneError):
        await running
    await until(lambda: not names_in_shared_places() - before, "nothing of it is left there")
    assert names_in(open_folder) == {"scratch", "modules", "image", rootfs.FOLDER}
    assert list(harbour.workshop.scratch.iterdir()) == []


async def test_without_an_image_it_shows_the_hosts_programs(harbour: Harbour) -> None:
    outcome = await harbour.run(harbour.host_plan("sh", "-c", "ls -A /; ls /home /root /var"))
    assert set(outcome.value.decode().split()) == {
        *("bin", "dev", "etc", "lib", "lib64", "proc", "tmp", "usr", "work")
    }, outcome


async def test_gpus_are_not_given(harbour: Harbour) -> None:
    with pytest.raises(PrepareFailedError, match="no GPUs"):
        await harbour.prepared(harbour.plan("sh")._replace(gpus=(0,)))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def names_in_shared_places() -> set[Path]:
    """Others come and go there as well."""
    places = map(Path, ("/run", "/mnt", "/var/tmp", "/dev/shm"))
    return {path for place in places for path in place.iterdir()}

"""Attacks from inside the process sandbox. Each is tried for real and must fail."""

import asyncio
import os
import socket
import time
from pathlib import Path

import pytest
from sandboxes import LIMITS, Workshop, needs_bubblewrap, open_folder, until, workshop

from lender.sandbox.files import outputs
from lender.sandbox.files.outputs import OutputRefusedError
from lender.sandbox.plan import Limits, TaskOutcome
from lender.sandbox.port import SandboxGoneError
from lender.sandbox.processes import autogroup, tree

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = needs_bubblewrap


async def attack(workshop: Workshop, script: str, limits: Limits = LIMITS) -> TaskOutcome:
    """Run a shell script as the only task of a sandbox, and keep the sandbox open."""
    sandbox = await workshop.prepared("process", script, limits=limits)
    return await sandbox.run(0)


async def python(workshop: Workshop, code: str) -> TaskOutcome:
    """Run a Python program as the only task of a sandbox."""
    return await attack(workshop, f"exec python3 -I -S - <<'END'\n{code}\nEND\n")


async def test_a_fork_bomb_is_bounded_and_ends_with_the_sandbox(workshop: Workshop) -> None:
    sandbox = await workshop.prepared(
        "process",
        "exec python3 -I -S -c 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass'",
    )
    running = asyncio.create_task(sandbox.run(0))
    (root,) = sandbox.root_pids
    await until(lambda: len(tree.members([root])) > LIMITS.processes // 2, "the bomb goes off")
    assert len(tree.members([root])) <= LIMITS.processes + 4  # supervisor and bubblewrap
    assert (await asyncio.to_thread(tree.freeze, [root], 20)).verified
    met = tree.members([root])
    assert (await asyncio.to_thread(tree.kill, [root], 20)).verified
    assert not any(map(tree.alive, met))
    with pytest.raises(SandboxGoneError):
        await running


async def test_a_daemonized_process_dies_with_its_task(workshop: Workshop) -> None:
    outcome = await attack(workshop, "(setsid nohup sleep 3600 >/dev/null 2>&1 &) ; printf gone")
    assert outcome.value == b"gone"
    (root,) = workshop.roots
    assert tree.members([root]) == (root,)  # the supervisor alone


async def test_a_new_session_gets_no_share_of_its_own(workshop: Workshop) -> None:
    """An autogroup of its own would weigh as much as the owner's desktop."""
    outcome = await python(
        workshop,
        "import os\nos.setsid()\n"
        "print(open('/proc/self/autogroup').read(), os.sched_getscheduler(0) == os.SCHED_IDLE)",
    )
    # Where sessions have no weight it is each process that yields.
    alone = str(not autogroup.weighs())
    assert outcome.value.decode().split() == [*session_of(workshop), "nice", "19", alone]


async def test_priority_is_not_taken_back(workshop: Workshop) -> None:
    outcome = await python(
        workshop,
        "import os\n"
        "def rank(): return os.sched_getscheduler(0), os.nice(0)\n"
        "had = rank()\n"
        "for policy in (os.SCHED_OTHER, os.SCHED_FIFO):\n"
        "  try: os.sched_setscheduler(0, policy, os.sched_param(int(policy == os.SCHED_FIFO)))\n"
        "  except PermissionError: pass\n"
        "try: os.nice(-1)\n"
        "except PermissionError: print(rank() == had)",
    )
    assert outcome.value.split() == [b"True"]


async def test_the_host_is_out_of_sight(workshop: Workshop, open_folder: Path) -> None:
    secret = open_folder / "secret"
    secret.write_text("owner's")
    secret.chmod(0o644)
    outcome = await attack(
        workshop,
        f"cat {secret} /etc/passwd /root/.profile /proc/1/root{secret};"
        "tr '\\0' '\\n' < /proc/1/environ; ls /home /etc /run /var; ls /proc | grep -c '^[0-9]'",
    )
    *shown, processes = outcome.value.decode().split()
    assert set(shown) <= {"/etc:", "alternatives", "ld.so.cache"}
    assert int(processes) <= 6
    assert secret.read_text() == "owner's"


async def test_nothing_but_the_working_folder_can_be_written(workshop: Workshop) -> None:
    outcome = await attack(
        workshop,
        "for f in /x /usr/x /etc/x /dev/x /usr/bin/sh /proc/sys/kernel/core_pattern"
        " /proc/sys/kernel/hostname /proc/sysrq-trigger /dev/kmsg; do"
        " (: >> $f) 2>/dev/null && echo $f; done; : > ok && echo ok",
    )
    assert outcome.value == b"ok\n"


async def test_the_hosts_network_is_out_of_reach(workshop: Workshop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0lender-test-{os.getpid()}")
        abstract.listen()
        outcome = await python(
            workshop,
            "import socket\n"
            f"for family, place in ((2, ('127.0.0.1', {server.getsockname()[1]})),"
            f" (1, '\\0lender-test-{os.getpid()}'), (2, ('192.0.2.1', 80))):\n"
            "  try: socket.socket(family).connect(place); print('connected')\n"
            "  except OSError as error: print('refused')\n"
            "for family, kind in ((40, 1), (38, 5), (17, 3)):\n"
            "  try: socket.socket(family, kind, 0); print('made')\n"
            "  except OSError as error: print('refused')\n",
        )
        abstract.close()
    assert outcome.value.split() == [b"refused"] * 6


async def test_no_descriptor_is_inherited(workshop: Workshop) -> None:
    outcome = await python(workshop, "import os\nprint(*sorted(map(int, os.listdir('/dev/fd'))))")
    first, *rest = outcome.value.split()
    # 0 (the program, by here document), 1, 2 and the folder that is being listed
    assert [first, *rest[:2]] == [b"0", b"1", b"2"]
    assert len(rest) == 3


def session_of(workshop: Workshop) -> list[str]:
    """The launcher's autogroup, by name."""
    group = Path(f"/proc/{workshop.launcher.pid}/autogroup")
    if not group.exists():
        pytest.skip("this kernel has no autogroups")
    return group.read_text().split()[:1]


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",  # a user namespace
        "mount(b'x', b'/tmp', b'tmpfs', 0, 0)",
        "ptrace(0, 0, 0, 0)",
        "syscall(keyctl, 0, -3, 1)",
        "inotify_init1(0)",
        "syscall(425, 1, 0)",  # io_uring_setup
        "setns(0, 0)",
        "ioctl(1, 0x5412, b'x')",  # TIOCSTI
    ],
)
async def test_a_dangerous_system_call_is_refused(workshop: Workshop, call: str) -> None:
    outcome = await python(
        workshop,
        "import ctypes, platform\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "keyctl = 250 if platform.machine() == 'x86_64' else 219\n"
        "from ctypes import *\n"
        f"print(c.{call}, ctypes.get_errno())",
    )
    assert outcome.value.split() == [b"-1", b"1"], outcome.stderr_tail.decode()


async def test_no_core_is_dumped(workshop: Workshop) -> None:
    outcome = await attack(workshop, "ulimit -c; ulimit -Hc; sh -c 'kill -SEGV $$'; ls")
    assert outcome.value.split()[-1] == b"0" or b"core" not in outcome.value
    assert list(workshop.scratch.iterdir()) == []


async def test_memory_of_many_small_processes_counts_together(workshop: Workshop) -> None:
    outcome = await python(
        workshop,
        "import os, time\n"
        "for _ in range(12):\n"
        "  if os.fork() == 0: x = bytearray(os.urandom(1 << 20)) * 16; break\n"
        "time.sleep(3600)",
    )
    assert outcome.limit == "memory"


async def test_many_small_files_hit_the_disk_limit(workshop: Workshop) -> None:
    outcome = await python(
        workshop,
        "import time\n"
        "for i in range(300): open(str(i), 'wb').write(bytes(65536))\n"
        "time.sleep(3600)",
    )
    assert outcome.limit == "disk"


async def test_a_folder_that_hides_its_content_counts_as_over(workshop: Workshop) -> None:
    outcome = await attack(workshop, "mkdir d; head -c 60000 /dev/zero > d/f; chmod 0 d")
    assert outcome.limit == "disk"


async def test_stdout_that_nobody_may_hold_is_cut(workshop: Workshop) -> None:
    limits = LIMITS._replace(output_bytes=100)
    outcome = await attack(workshop, "head -c 50000000 /dev/zero; sleep 3600", limits)
    assert (outcome.limit, len(outcome.value)) == ("output", 100)
    outcome = await attack(workshop, "head -c 50000000 /dev/zero >&2", limits)
    assert (outcome.state, len(outcome.stderr_tail)) == ("succeeded", 8192)


async def test_inputs_stay_as_they_were(workshop: Workshop) -> None:
    source = workshop.file("blob", b"as it was")
    sandbox = await workshop.prepared(
        "process",
        "echo x > in.txt; rm -f in.txt; mv in.txt y; chmod 777 in.txt; touch in.txt; cat in.txt",
        inputs={"in.txt": source},
    )
    before = source.stat()
    assert (await sandbox.run(0)).value == b"as it was"
    after = source.stat()
    assert source.read_bytes() == b"as it was"
    assert (before.st_mtime_ns, before.st_mode) == (after.st_mtime_ns, after.st_mode)


@pytest.mark.parametrize(
    "making",
    [
        "ln -s /etc/hostname out",
        "ln -s . here; mkdir d; echo x > d/out; ln -s d e",  # asked for as e/out
        "mkfifo out",
        "echo x > a; ln a out",
        "mkdir out",
        "python3 -c 'import socket; socket.socket(1).bind(\"out\")'",
        "true",
    ],
)
async def test_outputs_are_plain_files_of_their_own(workshop: Workshop, making: str) -> None:
    await attack(workshop, making)
    name = "e/out" if "ln -s d e" in making else "out"
    with pytest.raises(OutputRefusedError) as caught:
        outputs.collect(workshop.scratch, [name], 1000)
    assert caught.value.missing == (making == "true")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "", "x\0y", "."])
async def test_an_output_name_cannot_lead_out(workshop: Workshop, name: str) -> None:
    workshop.file("secret", b"owner's")
    await attack(workshop, "mkdir a")
    with pytest.raises(OutputRefusedError):
        outputs.collect(workshop.scratch, [name], 1000)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_outputs_over_their_bound_are_refused_together(workshop: Workshop) -> None:
    await attack(workshop, "echo 1 > a; truncate -s 3M b; printf %600s x > c; printf %600s x > d")
    for names in (["a", "b"], ["c", "d"]):
        with pytest.raises(OutputRefusedError, match="too large"):
            outputs.collect(workshop.scratch, names, 1000)
    before = open_descriptors()
    for one in outputs.collect(workshop.scratch, ["a", "c"], 1000):
        os.close(one.fd)
    assert open_descriptors() == before


async def test_whatever_a_task_leaves_is_wiped_and_nothing_else(
    workshop: Workshop, open_folder: Path
) -> None:
    bystander = open_folder / "bystander"
    bystander.mkdir()
    (bystander / "kept").touch()
    outcome = await python(
        workshop,
        "import os\n"
        f"os.symlink({str(bystander)!r}, 'link')\n"
        "os.makedirs(b'bad\\xff\\nname'); open(b'bad\\xff\\nname/\\xfe', 'w')\n"
        "os.makedirs('shut/inner')\n"
        "for name, depth in (('d', 1200), ('d' * 250, 20)):\n"
        "  for _ in range(depth): os.mkdir(name); os.chdir(name)\n"
        "  os.chdir('/work')\n"
        "print('made', flush=True)\n"
        "for name in ('shut/inner', 'shut', '.'): os.chmod(name, 0)",
    )
    assert outcome.value == b"made\n", outcome.stderr_tail.decode()
    for sandbox in workshop.sandboxes:
        await sandbox.close()
    assert list(workshop.scratch.iterdir()) == []
    assert (bystander / "kept").exists()


async def test_the_next_task_is_not_harmed_by_the_one_before(workshop: Workshop) -> None:
    sandbox = await workshop.prepared(
        "process",
        "[ $LENDER_TASK = 0 ] && { kill -9 -1; chmod 0 /work; kill -9 1; kill -9 $$; }; ls",
    )
    assert (await sandbox.run(0)).state == "failed"
    started = time.monotonic()
    outcome = await sandbox.run(1)
    assert (outcome.state, outcome.value) == ("succeeded", b"")
    assert time.monotonic() - started < LIMITS.time_s

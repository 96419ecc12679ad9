"""lenderd as on a Mac, as far as Linux can play one (`mac_stand_in`). No Mac has run this."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import throw_away
from sandboxes import USER, open_folder

from lender.sandbox.processes import account, table
from lender.sandbox.walls import landlock

__all__ = ["open_folder"]  # a fixture

TESTS = Path(__file__).resolve().parents[1]
MAC = str(TESTS / "mac_python")
UID = throw_away.user(0)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not os.access("/usr/bin/python3", os.X_OK),
    reason="plays a Mac on Linux, by a Python that any user can run",
)
REACHED = all(folder.stat().st_mode & 0o001 for folder in (TESTS, *TESTS.parents))
needs_walls = pytest.mark.skipif(
    landlock.abi() < landlock.SCOPES_SINCE_ABI or not (REACHED or USER is None),
    reason="no Landlock of version 6 to play sandbox-exec with, or out of the sandboxes' reach",
)
_PREPARE = """
import asyncio, concurrent.futures.thread, json, os, sys, time
from pathlib import Path
from lender.sandbox import selftest
from lender.sandbox.launcher import Launcher
from lender.sandbox.lease_sandbox import LeaseSandbox
from lender.sandbox.plan import Limits, SandboxPlan
from lender.sandbox.processes import stopping, tree
from lender.sandbox.processes.account import Account
from lender.sandbox.walls import seatbelt

USER, FOLDER = json.loads(sys.argv[1]), Path(sys.argv[2])
LIMITS = Limits(1, 512 << 20, 40.0, 1 << 20, 4 << 20, 8)

def plan(runtime, argv=(), program=None, inputs={}, packages=("cloudpickle",), **more):
    scratch = FOLDER / "state" / "lease"
    scratch.mkdir(parents=True)
    if USER:
        os.chown(scratch, *USER)
    return SandboxPlan("lease", runtime, "job", 2, program, tuple(argv), {}, inputs, (),
        LIMITS._replace(**more), scratch, packages=packages)

async def forget(_roots):
    pass

def told(outcome):
    return [outcome.state, outcome.limit, outcome.error, outcome.value.decode()]
"""


def on_mac(code: str, folder: Path, *words: str, timeout_s: float = 50) -> Any:  # noqa: ANN401 - JSON
    """What a program prints last, as JSON."""
    user = json.dumps(USER)
    done = subprocess.run(
        [MAC, "-c", _PREPARE + code, user, str(folder), *words],
        env={**os.environ, "LENDER_REAL_PYTHON": sys.executable},
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_every_module_is_loaded_without_what_only_linux_has(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, lender
names = [one.name for one in pkgutil.walk_packages(lender.__path__, "lender.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([sys.platform, len(names)]))
"""
    platform, count = on_mac(code, tmp_path)
    assert platform == "darwin"
    assert count > 200


@needs_walls
def test_the_self_test_passes_where_sandbox_exec_keeps_to_the_profile(open_folder: Path) -> None:
    code = """
found = asyncio.run(selftest.check_alone(USER and tuple(USER)))
print(json.dumps({name: selftest.told(one) for name, one in found.items()}))
"""
    found = on_mac(code, open_folder)
    for runtime in ("wasm", "process", "python"):
        assert found[runtime]["available"], found[runtime]
        assert any("cores are kept by admission" in note for note in found[runtime]["notes"])
    assert any("can't start processes" in note for note in found["process"]["notes"])
    assert not found["oci"]["available"]


def test_without_walls_nothing_but_wasm_is_offered(open_folder: Path) -> None:
    code = """
seatbelt.SANDBOX_EXEC = sys.argv[3]
found = asyncio.run(selftest.check_alone(USER and tuple(USER)))
print(json.dumps({name: [selftest.told(one)["available"], one.reason.split("; ")]
    for name, one in found.items() if name in ("process", "python")}))
"""
    bare = open_folder / "sandbox-exec"
    bare.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    bare.chmod(0o755)
    # The launcher is another process, with a sandbox-exec of its own.
    stand_in = TESTS / "mac_stand_in.py"
    text = stand_in.read_text().replace('HERE / "stand_in_sandbox_exec"', f"Path({str(bare)!r})")
    assert str(bare) in text
    changed = open_folder / "mac_stand_in.py"
    changed.write_text(text.replace("__file__).resolve().parent", f"{str(stand_in)!r}).parent"))
    wrapper = open_folder / "mac_python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{changed}" "$@"\n')
    wrapper.chmod(0o755)
    code = f"sys.executable = {str(wrapper)!r}\n" + code
    found = on_mac(code, open_folder, str(bare))
    for runtime in ("process", "python"):
        available, walls = found[runtime]
        assert not available
        assert "can read /etc/passwd" in walls
        assert "can signal lenderd" in walls or USER is None or "runs as root" not in walls
    assert "reaches the host's loopback" in found["python"][1]
    assert "reaches a socket of the host" in found["python"][1]


@needs_walls
def test_a_function_is_called_with_inputs_and_packages(open_folder: Path) -> None:
    code = """
import cloudpickle
(FOLDER / "program").write_bytes(cloudpickle.dumps(eval(sys.argv[3])))
(FOLDER / "given").write_text("the input")
for name in ("program", "given"):
    (FOLDER / name).chmod(0o644)

async def main():
    launcher = await Launcher.start(drop_to=USER and tuple(USER))
    try:
        one = plan("python", program=FOLDER / "program", inputs={"data/in": FOLDER / "given"})
        sandbox = LeaseSandbox(one, launcher, forget)
        await sandbox.prepare()
        print(json.dumps([told(await sandbox.run(task)) for task in (0, 1)]))
        await sandbox.close()
    finally:
        await launcher.close()

asyncio.run(main())
"""
    function = (
        "lambda task: (task, open('data/in').read(), open('left', 'a').write('x'), "
        "__import__('cloudpickle').__name__, __import__('os').path.realpath('.'))"
    )
    found = on_mac(code, open_folder, function)
    scratch = str(open_folder / "state" / "lease")
    for task, (state, _limit, error, value) in enumerate(found):
        assert (state, error) == ("succeeded", None)
        assert json.loads(value[1:]) == {"t": [task, "the input", 1, "cloudpickle", scratch]}


def test_a_wasm_task_ends_with_its_launcher_though_no_signal_tells_it(open_folder: Path) -> None:
    code = """
import wasmtime
(FOLDER / "spin.wasm").write_bytes(wasmtime.wat2wasm(
    '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'))
(FOLDER / "spin.wasm").chmod(0o644)

async def main():
    launcher = await Launcher.start(drop_to=USER and tuple(USER))
    sandbox = LeaseSandbox(plan("wasm", program=FOLDER / "spin.wasm"), launcher, forget)
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(0))
    await asyncio.sleep(0.2)
    (root,) = sandbox.root_pids
    assert tree.alive(root)
    # By its own hand: it can tell nobody, and the kernel does not.
    os.kill(launcher.pid, 9)
    deadline = time.monotonic() + 20
    while tree.alive(root):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    print(json.dumps("gone"), flush=True)
    os._exit(0)

asyncio.run(main())
"""
    on_mac(code, open_folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make somebody's processes another's")
@needs_walls
@pytest.mark.parametrize("how", ["the task ends", "pause", "the runner is killed"])
def test_who_leaves_the_tree_is_found_by_the_account(open_folder: Path, how: str) -> None:
    """A double fork in a session of its own, deaf to SIGTERM: macOS has no PID namespace for it."""
    code = """
import signal
HOW = sys.argv[3]
script = '''trap "" TERM
setsid sh -c '(trap "" TERM; while :; do :; done) & echo $! > left; exit' &
wait
[ "$1" = ends ] || while :; do :; done
'''

async def main():
    one = plan("process", ("sh", "-c", script, "sh", "ends" if HOW == "the task ends" else "on"))
    launcher = await Launcher.start(drop_to=tuple(USER), enclosed=True)
    from lender.sandbox.walls import confine
    confine.become(*USER)
    ours = tree.identify(os.getpid()), tree.identify(launcher.pid)
    tree.enclose(Account(os.getuid(), ours))
    sandbox = LeaseSandbox(one, launcher, forget)
    await sandbox.prepare()
    running = asyncio.create_task(sandbox.run(0))
    file, deadline = one.scratch / "left", time.monotonic() + 20
    while not (file.exists() and file.read_text().endswith("\\n")):
        assert time.monotonic() < deadline and not running.done(), running
        await asyncio.sleep(0.01)
    left = tree.identify(int(file.read_text()))
    while HOW != "the task ends" and left in tree.members(sandbox.root_pids):
        await asyncio.sleep(0.01)  # its parents are about to end
    if HOW == "pause":
        target = stopping.Standing(sandbox.root_pids)
        assert stopping.freeze((target,)).verified
        assert tree.stopped(left), "frozen with it"
        assert stopping.thaw((target,)).verified
        assert not tree.stopped(left)
    elif HOW == "the runner is killed":
        os.kill(sandbox.root_pids[0].pid, signal.SIGKILL)
    if HOW == "pause":
        await sandbox.close()
    else:
        await asyncio.gather(running, return_exceptions=True)
    deadline = time.monotonic() + 20
    while tree.alive(left):
        assert time.monotonic() < deadline, "it is killed"
        await asyncio.sleep(0.01)
    assert all(map(tree.alive, ours)), "who is spared"
    print(json.dumps("gone"))
    running.cancel()
    await launcher.close()

USER = [int(sys.argv[4])] * 2
asyncio.run(main())
"""
    try:
        assert on_mac(code, open_folder, how, str(UID)) == "gone"
        until(lambda: not any(map(lives, table.listed_of(UID))), "nothing is left of that user")
    finally:
        account.end_everything_of(UID, UID)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make somebody's processes another's")
@needs_walls
def test_with_an_account_a_function_may_start_processes_that_end_with_its_task(
    open_folder: Path,
) -> None:
    code = """
import cloudpickle
def function(task):
    import subprocess
    said = subprocess.run(["sh", "-c", "echo $((6 * 7))"], capture_output=True).stdout
    subprocess.run(["setsid", "sh", "-c", "(sleep 90 &) ; echo"], stdout=subprocess.DEVNULL)
    subprocess.Popen(["sleep", "90"])
    return said

cloudpickle.register_pickle_by_value(sys.modules["__main__"])
(FOLDER / "program").write_bytes(cloudpickle.dumps(function))
(FOLDER / "program").chmod(0o644)
USER = [int(sys.argv[3])] * 2

async def main():
    one = plan("python", program=FOLDER / "program")
    launcher = await Launcher.start(drop_to=tuple(USER), enclosed=True)
    from lender.sandbox.walls import confine
    confine.become(*USER)
    ours = tree.identify(os.getpid()), tree.identify(launcher.pid)
    tree.enclose(Account(os.getuid(), ours))
    sandbox = LeaseSandbox(one, launcher, forget)
    await sandbox.prepare()
    outcomes = [told(await sandbox.run(task)) for task in (0, 1)]
    deadline = time.monotonic() + 20
    while len(tree.members(ours[1:])) > 3:  # the launcher, the runner, the interpreter
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await sandbox.close()
    await launcher.close()
    print(json.dumps(outcomes))

asyncio.run(main())
"""
    try:
        for state, _limit, error, value in on_mac(code, open_folder, str(UID)):
            assert (state, error, value) == ("succeeded", None, "b42\n")
        until(lambda: not any(map(lives, table.listed_of(UID))), "nothing is left of that user")
    finally:
        account.end_everything_of(UID, UID)


def lives(pid: int) -> bool:
    process = table.read(pid)
    return process is not None and process.state not in b"ZXx"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_lenderd_starts_and_obeys_its_owner(open_folder: Path) -> None:
    state = open_folder / "state"
    environment = {**os.environ, "LENDER_REAL_PYTHON": sys.executable, "LENDERD_DRAIN_S": "0"}
    environment.pop("LENDER_STATE", None)
    log = open_folder / "log"
    if USER is not None:
        environment["LENDERD_USER"] = "nobody"
    serve = "import sys; from lender.daemon.main import main; sys.exit(main(sys.argv[1:]))"
    act = "import sys; from lender.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [MAC, "-c", serve, "--url", "nats://127.0.0.1:1", "--state", str(state)]
    with log.open("w") as stderr:
        lenderd = subprocess.Popen(words, env=environment, stderr=stderr)

    def verb(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [MAC, "-c", act, *words, "--json", "--state", str(state)],
            env=environment,
            capture_output=True,
            timeout=30,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    try:
        until(lambda: " serves " in log.read_text() or lenderd.poll() is not None, "it starts")
        shown = verb("status")
        assert shown["runtimes"]["wasm"]["available"]
        assert verb("pause")["daemon"] == "answered"
        assert verb("resume")["daemon"] == "answered"
        revoked = verb("revoke", "--all")
        assert (revoked["complete"], revoked["daemon"]) == (True, "answered")
    finally:
        lenderd.send_signal(signal.SIGTERM)
        assert lenderd.wait(30) == 0, log.read_text()

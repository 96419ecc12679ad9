"""What is left to a guest that broke out of its engine, or took the compiler over: its own files.

In its place stands code of ours, in the very process: where the module would be called, and where
it would be compiled. Each attempt is also made without the domain, to show that it is a real one.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from sandboxes import LIMITS, USER, Workshop, module, open_folder, workshop

from lender.sandbox import frames
from lender.sandbox.files import checkpoint
from lender.sandbox.frames import Decoder, Frame
from lender.sandbox.plan import SandboxPlan, outcomes_from_wire, plan_to_wire
from lender.sandbox.runtimes import module_cache, runner, wasm, wasm_binding
from lender.sandbox.walls import confine, landlock, sealed

__all__ = ["open_folder", "workshop"]  # fixtures
pytestmark = pytest.mark.skipif(
    landlock.abi() < landlock.FILES_SINCE_ABI,
    reason=f"Landlock of this kernel is of ABI {landlock.abi()}, not 2",
)
ANSWER_S = 40.0
TCP_SINCE_ABI = 4
REFUSED = {"EACCES", "EPERM"}
STARTS = {"start a process", "make a socket", "make two sockets"}
Told = dict[str, str]


class Place(NamedTuple):
    """An owner's file and process, and a lease's folders.

    Attributes:
        plan: of a wasm job that writes "hello".
        secret: the owner's, which everybody may read and write.
        bystander: a process of the sandboxes' own user.
        port: that somebody listens on.
        abstract: the name of an abstract socket that somebody listens on.
    """

    plan: SandboxPlan
    secret: Path
    bystander: int
    port: int
    abstract: str


@pytest.fixture
def place(open_folder: Path) -> Iterator[Place]:
    def file(name: str, content: bytes, mode: int = 0o644) -> Path:
        made = open_folder / name
        made.write_bytes(content)
        made.chmod(mode)
        return made

    folders = {}
    for name in ("scratch", "modules"):
        folders[name] = open_folder / name
        folders[name].mkdir(mode=0o700)
        if USER is not None:
            os.chown(folders[name], *USER)
    hello = "(drop (call $write (i32.const 1) (i32.const 256) (i32.const 5)))"
    plan = SandboxPlan(
        lease="lease",
        runtime="wasm",
        job="job",
        task_count=1,
        program=file("program", module(hello, "hello")),
        argv=(),
        env={},
        inputs={"in.txt": file("input", b"for it")},
        outputs=(),
        limits=LIMITS,
        scratch=folders["scratch"],
        module_cache=folders["modules"],
    )
    user = {} if USER is None else {"user": USER[0], "group": USER[1], "extra_groups": []}
    with contextlib.ExitStack() as stack:
        bystander = subprocess.Popen(["/bin/sleep", "600"], env={"SECRET": "1"}, **user)  # type: ignore[call-overload] # one of two forms
        stack.callback(bystander.wait)
        stack.callback(bystander.kill)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"\0lender-{os.urandom(8).hex()}"
        unix.bind(name)
        unix.listen()
        secret = file("notes.txt", b"the owner's", 0o666)
        yield Place(plan, secret, bystander.pid, tcp.getsockname()[1], name)


def attempts(place: Place) -> Told:
    """Try everything; how each try went."""
    told = {}

    def attempt(name: str, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
            told[name] = "done"
        except OSError as error:
            told[name] = errno.errorcode.get(error.errno or 0, str(error))

    def connect(family: socket.AddressFamily, address: object) -> None:
        with socket.socket(family) as client:
            client.settimeout(10)
            client.connect(address)

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def move() -> None:
        (scratch / "a").mkdir()
        (scratch / "b").mkdir()
        (scratch / "a" / "x").write_bytes(b"x")
        (scratch / "a" / "x").rename(scratch / "b" / "y")
        os.truncate(scratch / "b" / "y", 0)
        os.link(scratch / "b" / "y", scratch / "a" / "z")
        (scratch / "link").symlink_to("/etc/passwd")

    plan, bystander = place.plan, f"/proc/{place.bystander}"
    scratch, cache, program = plan.scratch, plan.module_cache, plan.program
    assert cache is not None
    assert program is not None
    attempt("read a file", place.secret.read_bytes)
    attempt("write a file", place.secret.write_bytes, b"changed")
    attempt("cut a file", os.truncate, place.secret, 0)
    attempt("read a folder", os.listdir, place.secret.parent)
    attempt("read the root", os.listdir, "/")
    attempt("make a file", (place.secret.parent / "new").touch)
    attempt("see processes", os.listdir, "/proc")
    attempt("read an environment", Path(f"{bystander}/environ").read_bytes)
    attempt("look at a process", os.readlink, f"{bystander}/exe")
    attempt("run a program", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0))
    attempt("start a process", fork)
    attempt("make a socket", lambda: socket.socket().close())
    attempt("make two sockets", lambda: [one.close() for one in socket.socketpair()])
    attempt("kill", os.kill, place.bystander, signal.SIGCONT)
    attempt("reach an abstract socket", connect, socket.AF_UNIX, place.abstract)
    attempt("reach a port", connect, socket.AF_INET, ("127.0.0.1", place.port))
    attempt("read its program", program.read_bytes)
    attempt("write to the cache", (cache / "x").write_bytes, b"native code")
    attempt("read the cache", os.listdir, cache)
    attempt("its own folder", move)
    attempt("its input", plan.inputs["in.txt"].read_bytes)
    return told


def taken_over(place: Place, *, confined: bool) -> tuple[Told, Told]:
    """Have the guest's place taken while it is compiled, and while it runs; what both could do."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        be_taken_over(theirs, place, confined=confined)
    theirs.close()
    try:
        ours.settimeout(ANSWER_S)
        decoder = Decoder(1 << 20)
        assert answer(ours, decoder, {"plan": plan_to_wire(place.plan)}).header == {
            "prepared": True
        }
        frame = answer(ours, decoder, {"tasks": [0]})
        (outcome,) = outcomes_from_wire(frame.header["outcomes"], frame.body)
        compiling, running = json.loads(outcome.value)
    finally:
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return compiling, running


def answer(sock: socket.socket, decoder: Decoder, request: dict[str, Any]) -> Frame:
    frames.send(sock, Frame(request))
    while data := frames.read(sock):
        for frame in decoder.feed(data):
            return frame
    raise AssertionError("it ended")


def be_taken_over(sock: socket.socket, place: Place, *, confined: bool) -> NoReturn:
    """The process of a wasm sandbox, as the launcher forks it, with ours in the guest's place."""
    told: list[Told] = []
    compile_it = module_cache._compile

    def compiler(engine: Any, source: bytes) -> Any:  # noqa: ANN401 - wasmtime's
        told.append(attempts(place))
        return compile_it(engine, source)

    def guest() -> int:
        told.append(attempts(place))
        os.write(1, json.dumps(told).encode())
        return 0

    try:
        if USER is not None:
            confine.become(*USER)
        confine.never_gain_privileges()
        module_cache._compile = compiler
        wasm_binding.Command.runs_in = lambda _command, _store: guest
        if not confined:
            landlock.keep_to = lambda _read, _write: None
            sealed.seal = lambda: False
        runner.serve(sock, wasm.start)
    finally:
        os._exit(1)


def test_whoever_takes_it_over_has_no_more_than_its_own_files(place: Place) -> None:
    compiling, running = taken_over(place, confined=True)
    open_to_it = {"its own folder", "its input", *STARTS}
    for_the_compiler = {"read its program", "write to the cache", "read the cache"}
    if landlock.abi() < landlock.SCOPES_SINCE_ABI:
        open_to_it |= {"kill", "reach an abstract socket"}
    if landlock.abi() < TCP_SINCE_ABI:
        open_to_it |= {"reach a port"}
    if sealed.program() is not None:
        open_to_it -= {*STARTS, "reach an abstract socket", "reach a port"}
    for told, done in ((compiling, open_to_it | for_the_compiler), (running, open_to_it)):
        assert {name for name, how in told.items() if how == "done"} == done, told
        assert {how for how in told.values() if how != "done"} <= REFUSED, told
    assert place.secret.read_bytes() == b"the owner's"


def test_each_of_these_attempts_comes_to_something_without_the_domain(place: Place) -> None:
    for told in taken_over(place, confined=False):
        missing = {name: how for name, how in told.items() if how != "done"}
        # Nobody but root makes files in a folder of root's.
        missing.pop("make a file", None)
        missing.pop("read a folder", None)
        assert not missing


def test_a_domain_that_does_not_hold_is_no_sandbox(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "restrict", lambda _ruleset: None)
    with pytest.raises(wasm.PrepareFailedError, match=r"can't be confined: .*don't hold"):
        wasm._keep_to(place.plan, compiles=True)


async def test_a_module_is_kept_in_a_cache_that_was_not_there_and_found_again(
    workshop: Workshop,
) -> None:
    cache = workshop.cache / "submitter" / "modules"
    found = []
    for _ in range(2):
        sandbox = workshop.sandbox(workshop.plan("wasm", "hello")._replace(module_cache=cache))
        await sandbox.prepare()
        assert (await sandbox.run(0)).value == b"hello"
        await sandbox.close()
        (kept,) = cache.iterdir()
        found.append(kept.stat())
        os.utime(kept, (1, 1))
    assert found[0].st_ino == found[1].st_ino, "not compiled again"
    assert found[1].st_mtime > 1, "marked as used"


async def test_a_guest_finds_its_checkpoint(workshop: Workshop) -> None:
    before = workshop.private("before")
    (before / checkpoint.FOLDER).mkdir()
    (before / checkpoint.FOLDER / "state").write_bytes(b"41")
    packed = checkpoint.pack(before, 1 << 20)
    assert packed is not None
    reads = module(
        "(if (call $open (i32.const 256) (i32.const 16) (i32.const 0) (i64.const 2))"
        "  (then (call $proc_exit (i32.const 7))))",
        "checkpoint/state",
    )
    archive = workshop.file("archive", packed)
    plan = workshop.plan("wasm", reads)._replace(checkpoint=True, checkpoints={0: archive})
    sandbox = workshop.sandbox(plan)
    await sandbox.prepare()
    assert (await sandbox.run(0)).exit_code == 0

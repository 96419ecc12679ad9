"""The self-test: it finds what holds here, and names each wall that does not stand."""

import errno
import json
import math
import os
import socket
import subprocess
from pathlib import Path

import pytest
from sandboxes import USER, Workshop, needs_bubblewrap, open_folder, workshop

from lender.sandbox import selftest
from lender.sandbox.plan import Runtime, TaskOutcome
from lender.sandbox.processes.controllers import Kept
from lender.sandbox.trials import linux, linux_probe
from lender.sandbox.walls import seccomp

__all__ = ["open_folder", "workshop"]  # fixtures


@needs_bubblewrap
async def test_it_finds_what_holds_and_says_what_holds_less_well(workshop: Workshop) -> None:
    found = await selftest.check(workshop.launcher, workshop.folder)
    for runtime in ("wasm", "process", "python"):
        verdict = found[runtime]  # type: ignore[index] # plain words
        assert isinstance(verdict, selftest.Available), verdict
        assert any("cores" in note for note in verdict.notes), "there is no cgroup here"
        assert verdict.network is (runtime != "wasm")
        assert not verdict.doubtful
    assert not any("memory" in note for note in found["wasm"].notes)  # type: ignore[union-attr]


@needs_bubblewrap
async def test_a_proxy_that_does_not_refuse_is_seen_and_costs_the_network_alone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux_probe, "not_to_reach", lambda _port: ("127.1:80",))
    found = await selftest.check(workshop.launcher, workshop.folder, runtimes=("process",))
    verdict = found["process"]
    assert isinstance(verdict, selftest.Available), verdict
    assert (verdict.network, verdict.doubtful) == (False, False)
    told = "it is given no network: gets to 127.1:80 by its proxy: HTTP/1.1 400"
    assert told in verdict.notes[-1]


@pytest.mark.parametrize(
    ("runtime", "kept", "told"),
    [
        ("process", (), {"cores", "disk", "memory", "processes"}),
        ("process", ("memory",), {"cores", "disk", "processes"}),
        ("python", ("cpu", "processes"), {"disk", "memory"}),
        ("oci", ("cpu", "memory", "processes"), {"disk"}),
        ("wasm", (), {"cores", "disk"}),
        ("wasm", ("cpu",), {"disk"}),
    ],
)
def test_what_no_cgroup_keeps_is_told(
    runtime: Runtime, kept: tuple[Kept, ...], told: set[str]
) -> None:
    notes = linux.notes(runtime, frozenset(kept), entered=True)
    filtered = "" if seccomp.program() else "no system call filter"
    assert {note.split()[0] for note in notes if not note.startswith(filtered or " ")} == told


@pytest.mark.parametrize("runtime", ["wasm", "process", "python", "oci"])
def test_a_second_wall_that_is_missing_is_told(runtime: Runtime) -> None:
    (note,) = set(linux.notes(runtime, frozenset(), entered=False)) - set(
        linux.notes(runtime, frozenset(), entered=True)
    )
    assert note.startswith("no second wall")


@needs_bubblewrap
async def test_alone_it_needs_no_lenderd_and_leaves_nothing() -> None:
    found = await selftest.check_alone(USER)
    assert isinstance(found["wasm"], selftest.Available)
    assert isinstance(found["process"], selftest.Available)


async def test_where_there_is_no_room_to_try_it_a_runtime_is_not_offered(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = workshop.folder / "gone"
    found = await selftest.check(workshop.launcher, gone, runtimes=("wasm", "process"))
    monkeypatch.setattr(socket, "create_server", no_descriptors)
    found |= await selftest.check(workshop.launcher, workshop.folder, runtimes=("python",))
    assert set(found) == {"wasm", "process", "python"}
    for verdict in found.values():
        assert isinstance(verdict, selftest.Unavailable)
        assert "can't be tried" in verdict.reason
        assert not verdict.breached, "it is tried again"


def no_descriptors(_address: tuple[str, int]) -> socket.socket:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_root_is_told_to_name_a_user() -> None:
    if os.getuid() != 0:
        pytest.skip("only root is refused")
    found = await selftest.check_alone()
    for verdict in found.values():
        assert isinstance(verdict, selftest.Unavailable)
        assert verdict.mend or "not installed" in verdict.reason


def bare(argv: list[str], folder: Path, text: str = "") -> bytes:
    """Run a command with no walls at all, as an ordinary user."""
    user = {} if USER is None else {"user": USER[0], "group": USER[1], "extra_groups": []}
    environment = {"PATH": "/usr/bin:/bin", "OWNERS_SECRET": "1"}
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment,
        input=text.encode(),
        capture_output=True,
        check=True,
        timeout=20,
        **user,  # type: ignore[call-overload] # one of two forms
    )
    return bytes(done.stdout)


def test_without_walls_the_shell_sees_that_there_are_none(open_folder: Path) -> None:
    with linux.host() as host:
        shown = bare(["sh", "-c", linux._SCRIPT], open_folder)
        seen = linux.see("process", TaskOutcome(0, "succeeded", 0, shown), host)
    walls = "\n".join(seen.walls)
    for named in (
        "sees /var",
        "shows OWNERS_SECRET",
        "shares net:",
        "shares pid:",
        "has NoNewPrivs 0",
    ):
        assert named in walls
    assert ("has Seccomp 0" in walls) == (seccomp.program() is not None)
    assert not seen.entered


def test_what_a_shell_sets_by_itself_is_no_owners(open_folder: Path) -> None:
    """Where sh is bash, as on Fedora and NixOS, a task's environment has more names."""
    with linux.host() as host:
        shown = bare(["bash", "-c", linux._SCRIPT], open_folder)
        seen = linux.see("process", TaskOutcome(0, "succeeded", 0, shown), host)
    assert b"env SHLVL" in shown
    walls = "\n".join(seen.walls)
    assert ("SHLVL" in walls, "shows OWNERS_SECRET" in walls) == (False, True)


def test_without_walls_a_function_sees_that_there_are_none(open_folder: Path) -> None:
    with linux.host() as host:
        text = Path(linux_probe.__file__).read_text()
        text += f"\nimport sys\nsys.stdout.buffer.write(probe({host!r})(0))"
        found = json.loads(bare(["/usr/bin/python3", "-I", "-S", "-"], open_folder, text))
    for named in (
        "sees /var",
        "shows OWNERS_SECRET of an environment",
        "shares the net namespace",
        "has NoNewPrivs 0",
        "reaches the host's loopback",
        "reaches an abstract socket of the host",
    ):
        assert named in found["walls"]
    assert not found["entered"]


@pytest.mark.parametrize("value", [b"", b"ko", b'b{"walls": ["sees /home"], "entered": true}'])
def test_an_answer_that_is_not_the_one_wanted_is_no_proof(value: bytes) -> None:
    outcome = TaskOutcome(0, "succeeded", 0, value)
    assert linux.see("wasm", outcome, {}).walls
    if value.startswith(b"b"):
        assert linux.see("python", outcome, {}).walls == ["sees /home"]
    else:
        with pytest.raises(ValueError, match="Expecting value"):
            linux.see("python", outcome, {})


@pytest.mark.parametrize(("within_s", "times"), [(60.0, 1), (math.inf, 2)])
async def test_who_has_little_time_tries_nothing_twice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, within_s: float, times: int
) -> None:
    """lenderd takes its time: what had too little with a network may do without one."""
    tried: list[object] = []

    async def starved(*arguments: object) -> selftest.Verdict:
        tried.append(arguments[-1])
        return selftest.Unavailable("hit its time limit", "", late=True)

    monkeypatch.setattr(selftest, "_see", starved)
    found = await selftest.check(
        workshop.launcher, workshop.folder, runtimes=("process",), within_s=within_s
    )
    assert len(tried) == times
    assert found["process"].late  # type: ignore[union-attr]  # it is unavailable

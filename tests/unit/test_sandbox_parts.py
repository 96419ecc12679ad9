"""The small parts that sandboxes are made of, each by itself."""

import contextlib
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lender.protocol.ids import task_name
from lender.sandbox import frames
from lender.sandbox.files import scratch
from lender.sandbox.frames import Decoder, Frame, FrameError
from lender.sandbox.meters import usage
from lender.sandbox.meters.capture import Capture
from lender.sandbox.meters.clock import RunningTime
from lender.sandbox.plan import (
    STDERR_TAIL_BYTES,
    Limits,
    SandboxPlan,
    TaskOutcome,
    outcomes_from_wire,
    outcomes_to_wire,
    plan_from_wire,
    plan_to_wire,
)
from lender.sandbox.port import PrepareFailedError
from lender.sandbox.walls import bubblewrap, seccomp

LIMITS = Limits(1, 64 << 20, 1.5, 100, 1 << 20, 8)


def test_frames_survive_any_cut() -> None:
    sent = [Frame({"task": 1}), Frame({"a": "ü"}, b"\0body")]
    data = b"".join(map(frames.encode, sent))
    decoder = Decoder(body_bytes_max=100)
    assert [f for i in range(len(data)) for f in decoder.feed(data[i : i + 1])] == sent


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!IIB", 2, 101, 0),
        struct.pack("!IIB", frames.HEADER_BYTES_MAX + 1, 0, 0),
        struct.pack("!IIB", 2, 0, 0) + b"{x",
        struct.pack("!IIB", 2, 0, 0) + b"[]",
        struct.pack("!IIB", 2, 0, 1) + b"{}",
    ],
)
def test_a_frame_that_breaks_the_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder(body_bytes_max=100).feed(data)


def test_plan_and_outcome_cross_the_socket_unchanged(tmp_path: Path) -> None:
    plan = SandboxPlan(
        *("l", "wasm", "j", 2, tmp_path / "p", ("a",), {"K": "v"}, {"i": tmp_path / "i"}),
        *(("o",), LIMITS, tmp_path, None),
    )
    assert plan_from_wire(plan_to_wire(plan)) == plan
    outcome = TaskOutcome(3, "failed", 1, b"value", b"stderr", "time", "why", 1.0, 2, 3, 4.0, 5.0)
    both = [outcome, TaskOutcome(task=4, state="succeeded", exit_code=0, value=b"more")]
    assert outcomes_from_wire(*outcomes_to_wire(both)) == both


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize(
    ("field", "said"),
    [
        *(("task", one) for one in (True, 1.0, "0", None)),
        *(("state", one) for one in ("owned", None, ["succeeded"])),
        *(("exit_code", one) for one in (False, 1.0, [1])),
        *(("value", one) for one in (-1, 1, "x", True, b"")),
        *(("stderr_tail", one) for one in (-1, 1, None)),
        *(("limit", one) for one in ("patience", {}, 0)),
        *(("error", one) for one in ("x" * 4097, b"x", 0)),
        *(("cpu_s", one) for one in (math.nan, math.inf, -math.inf, -1.0, True, "much", None)),
        *(("memory_peak_bytes", one) for one in (-1, 1.0, None)),
        *(("network_attempts_blocked", one) for one in (-1, False)),
        *(("started_at", one) for one in (math.nan, math.inf, -1, None)),
        *(("duration_s", one) for one in (math.nan, math.inf, -0.1, [])),
        *(("terminated", one) for one in (0, None, "no")),
    ],
)
def test_what_no_runner_says_spoils_all_that_comes_with_it(
    field: str, said: object, place: int
) -> None:
    told, body = outcomes_to_wire([TaskOutcome(n, "succeeded", 0, cpu_s=1.0) for n in range(3)])
    at = TaskOutcome._fields.index(field)
    of_each = (told[at] * 3)[:place]
    told[at] = [*of_each, said]
    with pytest.raises(ValueError, match="outcome"):
        outcomes_from_wire(told, body)


def test_fields_that_are_the_same_of_all_are_told_once() -> None:
    many = [TaskOutcome(n, "succeeded", 0, b"12345", cpu_s=n / 2) for n in range(50)]
    told, body = outcomes_to_wire(many)
    assert [len(field) for field in told] == [50, *[1] * 6, 50, *[1] * 5]
    assert outcomes_from_wire(told, body) == many
    alike = [many[3]] * 4
    assert outcomes_from_wire(*outcomes_to_wire(alike)) == alike, (
        "their number is told all the same"
    )
    for count in (0, 2, 49, 51):
        wrong = [*told[:7], [1.0] * count, *told[8:]]
        with pytest.raises(ValueError, match="outcome"):
            outcomes_from_wire(wrong, body)


def test_a_tail_is_no_longer_than_a_runner_keeps() -> None:
    long = TaskOutcome(0, "succeeded", 0, stderr_tail=bytes(STDERR_TAIL_BYTES + 1))
    with pytest.raises(ValueError, match="outcome"):
        outcomes_from_wire(*outcomes_to_wire([long]))


def test_of_the_words_of_each_task_a_plan_takes_along_none(tmp_path: Path) -> None:
    each = (("private",), ())
    plan = SandboxPlan(
        *("l", "wasm", "job-00001", 2, None, ("a",), {}, {}, (), LIMITS, tmp_path),
        separate=True,
        each=each,
    )
    wired = plan_to_wire(plan)
    assert "private" not in repr(wired)
    crossed = plan_from_wire(wired)
    assert crossed == plan._replace(each=((),))
    assert crossed.argv_of(1, each[0]) == ["a", "private"]
    assert crossed.job_of(1) == task_name("job-00001", 1)


def test_running_time_leaves_out_what_was_frozen() -> None:
    clock = RunningTime(now=10.0, step_s=0.02)
    assert clock.advance(10.02) == pytest.approx(0.02)
    assert clock.advance(3610.0) == pytest.approx(0.10)


@pytest.mark.parametrize(("written", "over"), [(b"x" * 5, False), (b"x" * 6, True)])
def test_a_value_is_cut_at_its_limit(written: bytes, *, over: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, written)
    capture = Capture(5)
    assert capture.take_stdout(reader)
    os.close(writer)
    assert not capture.take_stdout(reader)
    os.close(reader)
    assert (capture.value, capture.over) == (b"xxxxx", over)


@pytest.mark.parametrize("where", ["env", "inputs", "scratch"])
def test_a_zero_byte_cannot_become_an_argument_of_bubblewrap(where: str) -> None:
    """`x\\0--bind\\0/\\0/mnt` in a value would otherwise mount the owner's disk."""
    evil = "x\0--bind\0/\0/mnt"
    with pytest.raises(ValueError, match="zero byte"):
        bubblewrap.options(
            evil if where == "scratch" else "/s",
            {"K": evil if where == "env" else "v"},
            {"i": evil if where == "inputs" else "/i"},
            LIMITS,
            {},
        )


@pytest.mark.parametrize("name", ["", ".", "/etc/x", "../x", "a/../../x", "a\0b"])
def test_an_input_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(PrepareFailedError):
        scratch.check_name(name)


def test_a_file_that_is_removed_during_a_look_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (1 << 20))
    fleeting = [tmp_path / "first", tmp_path / "last"]
    list_folder = os.scandir

    @contextlib.contextmanager
    def while_some_go(folder: int) -> Iterator[list[os.DirEntry[str]]]:
        for file in fleeting:
            file.touch()
        with list_folder(folder) as content:
            entries = sorted(content, key=lambda entry: entry.name)
        for file in fleeting:
            file.unlink()
        yield entries

    monkeypatch.setattr(os, "scandir", while_some_go)
    assert scratch.used_bytes(tmp_path) >= 1 << 20


def rename_before(path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """A task's folder `a` gets a new name whenever it was listed and is about to be opened."""
    opens, left = os.open, list(range(times))

    def moving(where: object, *words: object, **more: object) -> object:
        if str(where).startswith(str(path / "a")) and left:
            Path(str(where)).rename(path / f"a{left.pop()}-{os.urandom(2).hex()}")
        return opens(where, *words, **more)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(os, "open", moving)


def test_a_folder_that_is_moved_during_a_look_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(b"x" * (1 << 20))
    rename_before(tmp_path, monkeypatch, times=2)
    assert 1 << 20 <= scratch.used_bytes(tmp_path) < 2 << 20


def test_a_folder_that_hides_from_every_look_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    rename_before(tmp_path, monkeypatch, times=1000)
    with pytest.raises(scratch.TooMuchError, match="moved away"):
        scratch.used_bytes(tmp_path)


def test_folders_that_come_and_go_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = os.open
    for number in range(20):
        (tmp_path / f"a{number}").mkdir()

    def removing(where: object, *words: object, **more: object) -> object:
        if str(where).startswith(str(tmp_path / "a")):
            Path(str(where)).rmdir()
            (tmp_path / f"b{os.urandom(4).hex()}").mkdir()
        return opens(where, *words, **more)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(os, "open", removing)
    assert scratch.used_bytes(tmp_path) < 1 << 20


@pytest.mark.parametrize("swapped", ["outer", "outer/inner"])
def test_a_look_never_leads_to_the_owners_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    (tmp_path / "work" / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "owners" / "inner").mkdir(parents=True)
    for folder in ("owners", "owners/inner"):
        (tmp_path / folder / "large").write_bytes(b"x" * (1 << 20))
    place = tmp_path / "work" / swapped

    def swapping(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: object, *words: object, **more: object) -> object:
            if str(path).endswith("/inner") and not place.is_symlink():
                place.rename(tmp_path / "work" / "aside")
                place.symlink_to(tmp_path / "owners")
            return real(path, *words, **more)

        return call

    monkeypatch.setattr(os, "open", swapping(os.open))
    monkeypatch.setattr(os, "scandir", swapping(os.scandir))
    assert scratch.used_bytes(tmp_path / "work") < 1 << 20
    assert place.is_symlink()


def test_a_link_in_place_of_a_folder_is_not_followed_to_be_wiped(tmp_path: Path) -> None:
    # As a thread of an interpreter that serves several tasks puts it there at the last moment.
    (tmp_path / "owners").mkdir(mode=0o755)
    (tmp_path / "owners" / "notes.txt").touch()
    (tmp_path / "work").symlink_to(tmp_path / "owners")
    with pytest.raises(NotADirectoryError):
        scratch.wipe(tmp_path / "work")
    assert (tmp_path / "owners").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "owners" / "notes.txt").exists()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filters_jumps_stay_inside_of_it(machine: str) -> None:
    code = seccomp.program(machine)
    assert code is not None
    instructions = list(struct.iter_unpack("=HBBI", code))
    for place, (operation, if_true, if_false, _value) in enumerate(instructions):
        if operation & 0x07 == 0x05:
            assert place + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == 0x06
    assert len(instructions) < 4096


def test_an_unknown_processor_has_no_filter() -> None:
    assert seccomp.program("riscv64") is None


def test_the_hosts_processes_never_count_as_a_sandboxs() -> None:
    """A sandbox that is still being set up has the host's root, and its /proc."""
    assert usage.measure(os.getpid()) == usage.Usage(0, 0)
    assert usage.proportional_bytes(os.getpid()) == 0

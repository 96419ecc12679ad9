"""The options that describe a job, shared by submit and map."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lender.cli.catalogue_choice import add_catalogue_option, chosen, described
from lender.cli.each_line import first_unsent
from lender.cli.exits import CommandError, Exit
from lender.client import (
    Array,
    CatalogueError,
    Content,
    JobRequest,
    Limits,
    Rejected,
    Requires,
    Verify,
    inputs_by_name,
)
from lender.client.specs import DAY_S
from lender.protocol.bounds import QUEUE_S_MAX
from lender.protocol.job import After, JobSpec
from lender.protocol.reach import parse_reach
from lender.protocol.strangers_text import visible
from lender.service.quantities import duration_s, size_bytes

_OPTIONS = {
    "inputs": "--in",
    "outputs": "--out",
    "wasm": "--wasm",
    "workload": "--workload",
    "command": "arguments",
    "cpu": "--cpu",
    "memory_bytes": "--mem",
    "time_s": "--timeout",
    "prepare_s": "--prepare-time",
    "scratch_bytes": "--scratch",
    "output_bytes": "--output",
    "processes": "--processes",
    "pool": "--pool",
    "vram_bytes": "--vram",
    "labels": "--label",
    "prefers": "--prefer",
    "net": "--net",
    "priority": "--priority",
    "retries": "--retries",
    "name": "--name",
    "array": "--array",
    "each": "--each",
    "expected_s": "--expect",
    "queue_s": "--queue-time",
    "not_before": "--delay",
    "not_after": "--deadline",
    "argv": "command",
}
"""What a fault of a request is of, as it was typed."""


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add everything that describes a job, and the command."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--in",
        dest="inputs",
        action="append",
        default=[],
        metavar="FILE[=NAME]",
        help="a file that the task sees, as NAME or as you wrote it; may be repeated",
    )
    files.add_argument(
        "--out",
        dest="outputs",
        action="append",
        default=[],
        metavar="FILE",
        help="a file that the task leaves and that comes back; may be repeated",
    )
    files.add_argument("--wasm", type=Path, metavar="FILE", help="run this WebAssembly module")
    limits = parser.add_argument_group("limits of a task")
    limits.add_argument("--cpu", type=int, metavar="N", help="cores; default 1")
    limits.add_argument(
        "--mem", type=size_bytes, metavar="SIZE", help="memory, such as 2G; default 512M"
    )
    limits.add_argument(
        "--timeout", type=duration_s, metavar="S", help="running time, such as 1h; default 5m"
    )
    limits.add_argument(
        "--scratch", type=size_bytes, metavar="SIZE", help="disk space, such as 2G; default 256M"
    )
    limits.add_argument(
        "--output",
        type=size_bytes,
        metavar="SIZE",
        help="of what it writes to standard output; default 1M",
    )
    limits.add_argument("--processes", type=int, metavar="N", help="processes and threads")
    limits.add_argument(
        "--prepare-time",
        type=duration_s,
        metavar="S",
        help="for fetching its files and compiling, or another machine tries; default 10m",
    )
    _add_machine_options(parser.add_argument_group("machine"))
    _add_answer_options(parser.add_argument_group("job"))
    _add_turn_options(parser.add_argument_group("when"))
    parser.add_argument("command", nargs="*", metavar="-- CMD ARGS", help="the command to run")


def _add_answer_options(job: argparse._ArgumentGroup) -> None:
    job.add_argument("--retries", type=int, default=0, metavar="N", help="run a failed task again")
    job.add_argument(
        "--verify",
        type=verification,
        metavar="N[/M]|spot",
        help="N owners' machines run each task, M of them (both, unless said) have to agree;"
        " spot: only as often as a machine's record makes it worth it",
    )
    job.add_argument(
        "--checkpoint",
        action="store_true",
        help="the task keeps its state in checkpoint/; on another machine it goes on from there",
    )
    job.add_argument(
        "--seal",
        action="store_true",
        help="encrypt inputs and results to you and the machines of --trust; only these run it",
    )
    job.add_argument("--name", default="", metavar="TEXT", help="for people to read")
    job.add_argument(
        "--workload",
        metavar="NAME",
        help="what owners grant; default command, or wasm. One that has its program needs no other"
        " (lender workloads)",
    )
    add_catalogue_option(job)


def _add_turn_options(when: argparse._ArgumentGroup) -> None:
    when.add_argument(
        "--priority", type=int, default=0, metavar="N", help="of your jobs, a higher one is sooner"
    )
    when.add_argument(
        "--delay",
        type=duration_s,
        default=0.0,
        metavar="S",
        help="not before that, such as 2h; less than 7d",
    )
    when.add_argument(
        "--after",
        dest="predecessors",
        action="append",
        default=[],
        type=_predecessor,
        metavar="JOB[:end]",
        help="only after the success of this job of yours, or any end of it; may be repeated",
    )
    when.add_argument(
        "--queue-time",
        type=duration_s,
        metavar="S",
        help="give it up unless it has begun by then, such as 10m",
    )
    when.add_argument(
        "--deadline",
        type=duration_s,
        metavar="S",
        help="give it up unless it has ended by then; at most 7d, default 1d (with --after 7d)",
    )
    when.add_argument(
        "--expect", type=duration_s, metavar="S", help="what a task probably takes, such as 30m"
    )


def _add_machine_options(machine: argparse._ArgumentGroup) -> None:
    machine.add_argument(
        "--pool", default="default", metavar="NAME", help="only machines that lend to this pool"
    )
    machine.add_argument("--os", choices=("linux", "macos"), help="only machines that run it")
    machine.add_argument("--arch", choices=("x86_64", "aarch64"), help="only such machines")
    machine.add_argument("--gpu", action="store_true", help="only machines that lend an NVIDIA GPU")
    machine.add_argument(
        "--vram",
        type=size_bytes,
        metavar="SIZE",
        help="GPU memory of a task, such as 2G; goes with --gpu",
    )
    machine.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        metavar="NAME",
        help="only machines that their owners call so; may be repeated",
    )
    machine.add_argument(
        "--prefer",
        dest="prefers",
        action="append",
        default=[],
        metavar="NAME",
        help="rather machines that are called so; may be repeated",
    )
    machine.add_argument(
        "--net",
        type=_reach,
        default=(),
        metavar="internet|HOST,…",
        help="what the tasks have to reach on the network: only machines whose owners allow it",
    )


def _reach(text: str) -> tuple[str, ...]:
    try:
        return parse_reach(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def verification(text: str) -> Verify:
    """Read `3/2`, `2` for both of two, or `spot`."""
    if text == "spot":
        return Verify(spot_check=True)
    match = re.fullmatch(r"([0-9])(?:/([0-9]))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no such thing; write 3/2, 2 or spot")
    try:
        return Verify(replicas=int(match[1]), quorum=int(match[2] or match[1]))
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.errors()[0]['msg']}") from error


def job_request(
    args: argparse.Namespace, array: Array | None = None, *, gang: bool = False
) -> JobRequest:
    """Return the job that the options describe.

    Raises:
        CommandError: they contradict each other or their workload, or a limit is out of its range.
    """
    try:
        said = _said(args, array, gang=gang)
        request = described(said, chosen(args.catalogue))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        field = str(fault["loc"][0])
        told = f"{_OPTIONS.get(field, field)}: {fault['msg'].removeprefix('Value error, ')}"
        raise CommandError(Exit.USAGE, visible(told)) from error
    except Rejected as error:
        raise fault_of(error) from error
    except CatalogueError as error:
        raise CommandError(Exit.USAGE, visible(str(error))) from error
    # A workload's own command line is that of each task, where each has arguments of its own.
    is_made = request.array is not said.array
    if request.wasm is None and not request.argv and not is_made:
        lines = " (lines that are commands: `-- sh -c`)" if array and array.each else ""
        told = f"no command: put it behind --{lines}, or name a module by --wasm"
        raise CommandError(Exit.USAGE, told)
    return request


def fault_of(error: Rejected) -> CommandError:
    """Return what breaks a rule, as it was typed."""
    field, reason = error.field, error.reason.removeprefix("Value error, ")
    if field == JobSpec.__name__ and ": " in reason:  # of several fields: names one itself
        field, reason = reason.split(": ", 1)
    field = field.rpartition(".")[2]
    return CommandError(Exit.USAGE, visible(f"{_OPTIONS.get(field, field)}: {reason}"))


def _said(args: argparse.Namespace, array: Array | None, *, gang: bool) -> JobRequest:
    command, inputs, outputs = list(args.command), args.inputs, args.outputs
    if not inputs and not outputs:
        command, inputs, outputs = take_trailing_files(command)
        if inputs or outputs:
            _note(f"taken as files of the job: {', '.join([*inputs, *outputs])}")
    limits = {
        "cpu": args.cpu,
        "memory_bytes": args.mem,
        "time_s": args.timeout,
        "prepare_s": args.prepare_time,
        "scratch_bytes": args.scratch,
        "output_bytes": args.output,
        "processes": args.processes,
    }
    requires = {
        "pool": args.pool,
        "os": args.os,
        "arch": args.arch,
        "gpu": "nvidia" if args.gpu or args.vram else None,
        "vram_bytes": args.vram,
        "labels": tuple(args.labels),
        "prefers": tuple(args.prefers),
        "net": args.net,
    }
    named = _named_inputs(inputs, command)
    if (file := first_unsent(array, named)) is not None:
        _note(f"lines name files here, such as {visible(file)}, which tasks see by --in alone")
    return JobRequest(
        argv=command,
        wasm=args.wasm,
        inputs=named,
        outputs=outputs,
        array=array,
        name=args.name,
        workload=args.workload,
        limits=Limits(**{name: value for name, value in limits.items() if value is not None}),
        requires=Requires(**{name: value for name, value in requires.items() if value}),
        retries=args.retries,
        verify=args.verify,
        priority=args.priority,
        expected_s=args.expect,
        delay_s=args.delay,
        after=args.predecessors,
        queue_s=args.queue_time,
        deadline_s=latest_end_s(args.deadline, args.delay, args.predecessors),
        gang=gang,
        checkpoint=args.checkpoint,
        sealed=args.seal,
    )


def _predecessor(text: str) -> After:
    job, _, on = text.partition(":")
    try:
        return After.model_validate({"job": job, "on": on or "success"})
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no job; write its id, or its id with :end"
        ) from error


def latest_end_s(said_s: float | None, delay_s: float, after: Sequence[After]) -> float:
    """Return when a job must have ended: unless said, a day after it may run."""
    if said_s is not None:
        return said_s
    return QUEUE_S_MAX if after else min(DAY_S + delay_s, QUEUE_S_MAX)


def take_trailing_files(command: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Split `--in F` and `--out F` off the end of a command that names these files before.

    `sha256sum file.bin --in file.bin` is the command `sha256sum file.bin` with an input. A
    command's own `--in other.wav`, whose file it names only there, stays part of the command.

    Returns:
        The command, inputs and outputs; all or none of the trailing options are taken.
    """
    rest = list(command)
    found: list[tuple[str, str]] = []
    while option := _file_option(rest):
        verb, value, words = option
        found.insert(0, (verb, value))
        del rest[-words:]
    if not all(_is_named(value, rest) for _, value in found):
        return list(command), [], []
    inputs = [value for verb, value in found if verb == "--in"]
    outputs = [value for verb, value in found if verb == "--out"]
    return rest, inputs, outputs


def _file_option(words: Sequence[str]) -> tuple[str, str, int] | None:
    """Return the file option at the end: its name, its value, and its number of words."""
    verb, equals, value = words[-1].partition("=") if words else ("", "", "")
    if equals and verb in ("--in", "--out"):
        return verb, value, 1
    if len(words) >= 2 and words[-2] in ("--in", "--out"):
        return words[-2], words[-1], 2
    return None


def _is_named(value: str, words: Sequence[str]) -> bool:
    """Tell whether the file, or the name that the task sees, stands in one of the words."""
    names = [value, *value.rpartition("=")[::2]]
    patterns = [
        rf"(?<![\w./-])(?:\./)?{re.escape(name.removeprefix('./'))}(?![\w/-]|\.\w)"
        for name in names
        if name
    ]
    return any(re.search(pattern, word) for pattern in patterns for word in words)


def _named_inputs(inputs: Sequence[str], command: Sequence[str]) -> dict[str, Content]:
    named: dict[str, Content] = {}
    for text in inputs:
        file, equals, name = text.rpartition("=")
        # A file that is really called so is not taken apart.
        one: dict[str, Content] = (
            {name: Path(file)} if equals and not Path(text).exists() else inputs_by_name([text])
        )
        for task_name, content in one.items():
            if task_name in named:
                raise CommandError(
                    Exit.USAGE, f"two inputs are called {task_name!r}; use --in FILE=NAME"
                )
            if task_name != text and text in command:
                _note(f"the task sees {text} as {task_name}: use that name in the command")
            named[task_name] = content
    return named


def _note(text: str) -> None:
    print(f"lender: {text}", file=sys.stderr)

"""What a sandbox is asked to do and what a task came to: plain records, standard library only.

They cross from the daemon into the sandbox's own process, whose start must stay cheap.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

Runtime = Literal["wasm", "process", "python", "oci"]
LimitName = Literal["memory", "time", "output", "disk", "processes"]

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
STDERR_TAIL_BYTES = 8192
ERROR_CHARS_MAX = 4096
WORK_FOLDER = "/work"
JOB_NAME, TASK_NAME, TASK_WORD = "LENDER_JOB", "LENDER_TASK", "{task}"
"""Where a task's job and index are put: values of these names; the index in place of that word."""
JOB_VARIABLES = (JOB_NAME, "LENDER_TASK_COUNT")
"""What a task is told of its job."""
# One file may be this much larger than the whole folder may: then the folder is seen to be over.
FILE_MARGIN_BYTES = 1 << 16

PROXY_PORT = 3128
"""Of a sandbox's own loopback, which is nobody else's: so it is always free."""
_PROXY_NAMES = ("http_proxy", "https_proxy", "all_proxy")
PROXY_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        **{
            name: f"http://127.0.0.1:{PROXY_PORT}"
            for one in _PROXY_NAMES
            for name in (one, one.upper())
        },
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
    }
)
"""What tells programs of a sandbox's proxy; a job may say otherwise."""

_STATES = frozenset(("succeeded", "failed"))
_LIMITS_OR_NONE = frozenset((None, *get_args(LimitName)))


class Limits(NamedTuple):
    """What one task may use.

    Attributes:
        cpu: cores; kept by the kernel where a cgroup has the controller, else by admission only.
        memory_bytes: linear memory for wasm; resident memory of all processes together.
        time_s: running time of one task; time spent frozen does not count.
        output_bytes: length of the value.
        scratch_bytes: everything in the scratch folder together, inputs left out.
        processes: processes and threads at once; wasm has one anyway.
        prepare_s: compiling or loading the program, before the first task.
    """

    cpu: float
    memory_bytes: int
    time_s: float
    output_bytes: int
    scratch_bytes: int
    processes: int
    prepare_s: float = 600.0


class Network(NamedTuple):
    """Where a sandbox may get to, by its proxy.

    Attributes:
        reach: the job's places; see `lender.protocol.reach`.
        barred: hosts that are not for it, wherever they are: the lender's own servers.
        pinned: name -> address that is taken for it as it is, public or not. For tests; a lender
            pins nothing.
        counters: file by which its proxies count, see `egress.counters`; None: nobody looks.
    """

    reach: tuple[str, ...]
    barred: tuple[str, ...] = ()
    pinned: Mapping[str, str] = MappingProxyType({})
    counters: Path | None = None


class DeviceView(NamedTuple):
    """What a sandbox sees of a device.

    Attributes:
        nodes: device files: where each is, and what it is called inside.
        folders: of sysfs: the folder, and the link inside that leads there.
    """

    nodes: tuple[tuple[str, str], ...]
    folders: tuple[tuple[str, str], ...] = ()


class SandboxPlan(NamedTuple):
    """One lease's sandbox.

    Attributes:
        lease: lease id, for names and messages only.
        runtime: how the tasks are run.
        job: job id, shown to the tasks as LENDER_JOB.
        task_count: tasks of the whole job, shown as LENDER_TASK_COUNT.
        program: the job's blob, verified by its hash: a wasm module, a pickled callable, an
            image, or the root file system of a process; None for a process on the machine's own.
        argv: a command line; for wasm the arguments behind the program's name. `{task}` in an
            entry becomes the task's index.
        env: the job's own environment; LENDER_ names are ours.
        inputs: name relative to the working folder -> verified file that is only read.
        outputs: names relative to the working folder, for `outputs.collect`.
        limits: per task.
        scratch: an empty folder that the sandbox's user can write; everything in it is ours to
            wipe.
        module_cache: folder private to this user for compiled modules; None keeps none.
        gpus: indices of the GPUs whose devices it sees (NVML's order).
        devices: other devices that it sees.
        checkpoint: each task finds a checkpoint folder, see `files.checkpoint`.
        checkpoints: task -> verified archive of its checkpoint folder, from an earlier attempt.
        grace_s: how long a task may go on after SIGTERM; time spent frozen does not count.
        packages: import names of the lender's own packages that a python task may import.
        network: where it may get to; None: it has no way out.
        separate: each task is a job of its own to itself: task 0 of 1, of a job that is called by
            `job` and its index (`ids.task_name`).
        each: what follows `argv` in the command line of each task; () where nothing does. It stays
            with who asks: a sandbox knows whether there is any, and is told a task's with the task.
    """

    lease: str
    runtime: Runtime
    job: str
    task_count: int
    program: Path | None
    argv: tuple[str, ...]
    env: Mapping[str, str]
    inputs: Mapping[str, Path]
    outputs: tuple[str, ...]
    limits: Limits
    scratch: Path
    module_cache: Path | None = None
    gpus: tuple[int, ...] = ()
    devices: tuple[DeviceView, ...] = ()
    checkpoint: bool = False
    checkpoints: Mapping[int, Path] = MappingProxyType({})
    grace_s: float = 10.0
    packages: tuple[str, ...] = ("cloudpickle",)
    network: Network | None = None
    separate: bool = False
    each: Sequence[Sequence[str]] = ()

    def argv_of(self, task: int, words: Sequence[str] = ()) -> list[str]:
        """The command line of one task, with the words that are its own."""
        index = self.index_of(task)
        return [entry.replace(TASK_WORD, index) for entry in (*self.argv, *words)]

    def env_of(self, task: int) -> dict[str, str]:
        """The environment of one task; ours wins over the job's."""
        return {
            **(PROXY_ENVIRONMENT if self.network is not None else {}),
            **self.env,
            JOB_NAME: self.job_of(task),
            TASK_NAME: self.index_of(task),
            "LENDER_TASK_COUNT": "1" if self.separate else str(self.task_count),
        }

    def job_of(self, task: int) -> str:
        """What a task is told that its job is called."""
        return f"{self.job}-{task}" if self.separate else self.job

    def index_of(self, task: int) -> str:
        """What a task is told that its index is."""
        return "0" if self.separate else str(task)


class TaskOutcome(NamedTuple):
    """How one task ended.

    Attributes:
        task: index in the job.
        state: succeeded means exit code 0 and no limit hit.
        exit_code: of the command or of WASI's proc_exit; None when it was stopped, trapped or
            raised an exception.
        value: standard output; of a python task, what its function returned, encoded.
        stderr_tail: the last 8 KiB of standard error.
        limit: the limit that ended it.
        error: in words, for a person; None for a plain exit.
        cpu_s: user and system time.
        memory_peak_bytes: linear memory for wasm; largest single process otherwise; of the whole
            sandbox where the kernel ended it at its memory limit.
        network_attempts_blocked: tries to reach a network; None where they can't be counted. wasm
            has no way to try.
        started_at: monotonic clock (CLOCK_MONOTONIC) when the task started.
        duration_s: from then to its end, time spent frozen included.
        terminated: it ended because it was asked to (SIGTERM), and may have left a checkpoint.
    """

    task: int
    state: Literal["succeeded", "failed"]
    exit_code: int | None = None
    value: bytes = b""
    stderr_tail: bytes = b""
    limit: LimitName | None = None
    error: str | None = None
    cpu_s: float = 0.0
    memory_peak_bytes: int = 0
    network_attempts_blocked: int | None = 0
    started_at: float = 0.0
    duration_s: float = 0.0
    terminated: bool = False


_NONE = type(None)
_KINDS = tuple(
    frozenset[type](kinds)
    for kinds in (
        *((int,), (str,), (int, _NONE), (bytes,), (bytes,), (str, _NONE), (str, _NONE)),
        *((int, float), (int,), (int, _NONE), (int, float), (int, float), (bool,)),
    )
)
"""What each field of an outcome may be."""


def plan_to_wire(plan: SandboxPlan) -> dict[str, Any]:
    """The plan as JSON values, without the words of each task."""
    return {
        **plan._asdict(),
        "each": ((),) if plan.each else (),
        "limits": plan.limits._asdict(),
        "env": dict(plan.env),
        "inputs": {name: str(path) for name, path in plan.inputs.items()},
        "program": None if plan.program is None else str(plan.program),
        "scratch": str(plan.scratch),
        "module_cache": None if plan.module_cache is None else str(plan.module_cache),
        "checkpoints": [(task, str(path)) for task, path in plan.checkpoints.items()],
        "network": None
        if plan.network is None
        else {
            **plan.network._asdict(),
            "pinned": dict(plan.network.pinned),
            "counters": plan.network.counters and str(plan.network.counters),
        },
    }


def plan_from_wire(fields: Mapping[str, Any]) -> SandboxPlan:
    """The plan that `plan_to_wire` wrote."""
    cache, program, network = fields["module_cache"], fields["program"], fields["network"]
    return SandboxPlan(
        **{
            **fields,
            "limits": Limits(**fields["limits"]),
            "argv": tuple(fields["argv"]),
            "outputs": tuple(fields["outputs"]),
            "inputs": {name: Path(path) for name, path in fields["inputs"].items()},
            "program": None if program is None else Path(program),
            "scratch": Path(fields["scratch"]),
            "module_cache": None if cache is None else Path(cache),
            "gpus": tuple(fields["gpus"]),
            "devices": tuple(_device(one) for one in fields["devices"]),
            "packages": tuple(fields["packages"]),
            "checkpoints": {task: Path(path) for task, path in fields["checkpoints"]},
            "network": None if network is None else _network(network),
        }
    )


def _device(fields: Sequence[Any]) -> DeviceView:
    nodes, folders = (tuple((at, inside) for at, inside in pairs) for pairs in fields)
    return DeviceView(nodes, folders)


def _network(fields: Mapping[str, Any]) -> Network:
    counters = fields["counters"]
    return Network(
        tuple(fields["reach"]),
        tuple(fields["barred"]),
        fields["pinned"],
        None if counters is None else Path(counters),
    )


def outcomes_to_wire(outcomes: Sequence[TaskOutcome]) -> tuple[list[list[Any]], bytes]:
    """The outcomes field by field in their order, and the bytes behind them.

    A field that is the same of all is told once, as most are of short tasks that are told together;
    that of the tasks says how many there are. Of bytes it has their lengths.
    """
    fields: list[list[Any]] = [*map(list, zip(*outcomes, strict=True))]
    values, tails = fields[_VALUE], fields[_STDERR_TAIL]
    fields[_VALUE], fields[_STDERR_TAIL] = [*map(len, values)], [*map(len, tails)]
    told = [
        field[:1] if field.count(field[0]) == len(field) and place != _TASK else field
        for place, field in enumerate(fields)
    ]
    return told, b"".join(chain.from_iterable(zip(values, tails, strict=True)))


def outcomes_from_wire(told: object, body: bytes) -> list[TaskOutcome]:
    """The outcomes that `outcomes_to_wire` wrote.

    Raises:
        ValueError: they are none. Only a runner that its guest has taken over answers so.
    """
    if type(told) is not list or set(map(type, told)) != {list}:
        raise ValueError("no outcomes")
    if len(told) != len(TaskOutcome._fields):
        raise ValueError("no outcome")
    count = len(told[_TASK])
    if not count or not {1, count}.issuperset(map(len, told)):
        raise ValueError("fields of another number of outcomes")
    values, tails = _cut(body, told[_VALUE], told[_STDERR_TAIL], count)
    fields = [*told]
    fields[_VALUE], fields[_STDERR_TAIL] = values, tails
    if not _are_sound(fields):
        raise ValueError("no sound outcome")
    each = (field if len(field) == count else repeat(field[0], count) for field in fields)
    return [*map(TaskOutcome._make, zip(*each, strict=True))]


def _cut(
    body: bytes, values_bytes: list[Any], tails_bytes: list[Any], count: int
) -> tuple[list[bytes], list[bytes]]:
    """Values and ends of standard error, in turns one behind the other."""
    sizes_bytes = [*values_bytes, *tails_bytes]
    if set(map(type, sizes_bytes)) != {int} or min(sizes_bytes) < 0:
        raise ValueError("no outcome")
    if not body and not any(sizes_bytes):
        return [b""], [b""]
    pieces, at = [], 0
    for place in range(count):
        for sizes in (values_bytes, tails_bytes):
            end = at + sizes[place if len(sizes) == count else 0]
            pieces.append(body[at:end])
            at = end
    if at != len(body):
        raise ValueError("bytes that are not the outcomes'")
    return pieces[::2], pieces[1::2]


_TASK, _VALUE, _STDERR_TAIL = map(TaskOutcome._fields.index, ("task", "value", "stderr_tail"))


def _are_sound(fields: Sequence[Sequence[Any]]) -> bool:
    """Whether outcomes say nothing that a runner would not; each field of all of them together."""
    by_kind = zip(_KINDS, fields, strict=True)
    if not all(kinds.issuperset(map(type, field)) for kinds, field in by_kind):
        return False
    _, states, _, _, tails, limits, errors, cpu_s, peaks, attempts, starts, took_s, _ = fields
    return (
        _STATES.issuperset(states)
        and _LIMITS_OR_NONE.issuperset(limits)
        and max(map(len, tails)) <= STDERR_TAIL_BYTES
        and max(map(len, filter(None, errors)), default=0) <= ERROR_CHARS_MAX
        and min(peaks) >= 0
        and min(filter(None, attempts), default=0) >= 0
        # What is no number makes a sum that is none; what min says beside it means nothing.
        and all(math.isfinite(sum(times)) and min(times) >= 0 for times in (cpu_s, starts, took_s))
    )

"""What a workload's description says of a job, where the job says nothing itself. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lender.client.arguments import Bound, bind, expand, is_optional, plain
from lender.client.errors import Rejected
from lender.client.specs import JobRequest, array_of_each
from lender.client.workload import Workload
from lender.protocol.job import TASK_PLACEHOLDER, Array, Limits, Requires

STDOUT = "stdout"
_SENT_OTHERWISE = {
    "python": "is of Python functions: submit one from Python, see lender.client",
    "oci": "is of container images: submit one as docs/protocol.md says",
}


def filled(request: JobRequest, workload: Workload) -> JobRequest:
    """Return the request with the workload's program, files, default limits, needs and outputs.

    What the request says itself stays as it is: limits and needs one by one, outputs all together.

    Args:
        request: its `argv` are the workload's arguments, where that has its program.
        workload: what it is to be a job of.

    Raises:
        Rejected: it is no job of this workload; the field is the request's.
    """
    if workload.runtime in _SENT_OTHERWISE:
        raise Rejected("workload", f"{workload.name} {_SENT_OTHERWISE[workload.runtime]}")
    wasm = workload.module if request.wasm is None else request.wasm
    if wasm is None and workload.runtime == "wasm":
        raise Rejected("wasm", f"{workload.name} runs a module of yours: name it")
    if wasm is not None and workload.runtime != "wasm":
        raise Rejected("wasm", f"{workload.name} runs no module: it is of {workload.runtime}")
    each = request.array.each if isinstance(request.array, Array) else ()
    bound = [_bound([*request.argv, *words], workload) for words in each or ((),)]
    for one in bound:
        _check_inputs(request, workload, one.named)
    lines = [[*expand(workload.command, workload.arguments, one)] for one in bound]
    argv, array = lines[0] or request.argv, request.array
    if each and workload.command:
        argv, array = (), array_of_each(lines, array)
    limits = workload.limits.model_dump(exclude_unset=True)
    requires = workload.requires.model_dump(exclude_unset=True)
    return replace(
        request,
        workload=workload.name,
        wasm=wasm,
        argv=argv,
        array=array,
        inputs=workload.carried | dict(request.inputs),
        outputs=request.outputs or _outputs_of_all(workload, bound),
        limits=Limits(**(limits | request.limits.model_dump(exclude_unset=True))),
        requires=Requires(**(requires | request.requires.model_dump(exclude_unset=True))),
    )


def _bound(words: Sequence[str], workload: Workload) -> Bound:
    """The arguments; none of a workload whose program is the submitter's."""
    if not workload.has_program:
        return Bound({})
    names = [*workload.arguments]
    bound = bind(names, words)
    if bound is None:
        takes = " ".join(names) or "no arguments"
        meanings = "".join(f"\n  {name}: {what}" for name, what in workload.arguments.items())
        raise Rejected("command", f"{workload.name} takes {takes}{meanings}")
    return bound


def _check_inputs(request: JobRequest, workload: Workload, named: Mapping[str, str]) -> None:
    left_out = {*plain(workload.arguments)} - named.keys()
    for name, what in workload.inputs.items():
        if is_optional(name) or name in left_out:
            continue
        file = named.get(name, name).removeprefix("/work/").removeprefix("./")
        if TASK_PLACEHOLDER not in file and file not in request.inputs:
            raise Rejected("inputs", f"{workload.name} reads {file} ({what}): name it as an input")


def _outputs_of_all(workload: Workload, bound: Sequence[Bound]) -> list[str]:
    """The files that every task leaves in any case."""
    outputs, *others = ([*_outputs(workload, one.named)] for one in bound)
    for other in others:
        if other != outputs:
            reason = f"tasks would leave {outputs} and {other}: give the file the same name in each"
            raise Rejected("each", reason)
    return outputs


def _outputs(workload: Workload, named: Mapping[str, str]) -> Iterator[str]:
    """The files that a task leaves in any case."""
    left_out = {STDOUT, *plain(workload.arguments)} - named.keys()
    for name in workload.outputs:
        if is_optional(name) or name in left_out:
            continue
        file = named.get(name, name)
        if TASK_PLACEHOLDER in file:
            reason = f"{name} has the same name in every task; it comes back into TASK.out/"
            raise Rejected("command", reason)
        yield file

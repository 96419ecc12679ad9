"""`lender why JOB` for who has submitted it: what it waits for, where it runs, what became of it.

The fleet is asked, not this machine; `lender.cli.why` has what the machine says of a job.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from lender.cli.connect import with_client
from lender.cli.exits import CommandError, Exit
from lender.cli.words import complain, key, printable, say
from lender.client import Client, Job, JobStatus, KeyFault, Terminal, error_of
from lender.client.errors import outcome_of
from lender.client.keys import default_key_path
from lender.protocol.ids import task_named

_ULID_CHARS = 26


class Answer(NamedTuple):
    """What was found out about a job, for people and for programs."""

    lines: list[str]
    document: dict[str, Any]


def is_meant(args: argparse.Namespace) -> bool:
    """Whether `lender why JOB` is to ask the fleet: who asks is a submitter, or says so.

    A whole id as our tools make them, and a key to ask with, are enough.
    """
    if args.state is not None:
        return False
    if any((args.url, args.key, args.creds, args.task is not None)):
        return True
    try:
        about = task_named(args.about)
        job = about[0] if about is not None else args.about
        return len(job) == _ULID_CHARS and default_key_path(os.environ).exists()
    except (KeyFault, OSError):
        return False


def run(args: argparse.Namespace, here: Callable[[], Answer | None]) -> int:
    """Print what the fleet says of a job, and below it what this machine does, if it knows it.

    Raises:
        CommandError: neither can tell anything.
    """
    try:
        fleet, fault = _ask(args), None
    except CommandError as error:
        fleet, fault = None, error
    local = here()
    if fault is not None and local is None:
        raise fault
    if fault is not None and fault.code != Exit.FAILED:
        complain(f"lender why: as for your own jobs, {fault}")
    if args.json:
        _print_documents(fleet, local)
        return Exit.DONE
    say(fleet.lines if fleet else [])
    if local is not None:
        say([*(["On this machine:"] if fleet else []), *local.lines])
    return Exit.DONE


def _print_documents(fleet: Answer | None, local: Answer | None) -> None:
    """The fleet's answer is the document, whether or not this machine has one as well."""
    here = {"schema": "lender.why/1", **local.document} if local else None
    told = {"schema": "lender.why-job/1", **fleet.document, "here": here} if fleet else here
    print(json.dumps(told, indent=2))


def _ask(args: argparse.Namespace) -> Answer:
    answers: list[Answer] = []

    async def ask(client: Client) -> int:
        job = await client.get(args.about)
        if args.task is not None and not job.spec.has_task(args.task):
            raise CommandError(Exit.USAGE, f"job {job.id} has no task {args.task}")
        answers.append(await _answer(client, job, args.task))
        return Exit.DONE

    with_client(args, ask)
    return answers[0]


async def _answer(client: Client, job: Job, task: int | None) -> Answer:
    terminal = await job.terminal()
    asked = 0 if task is None and job.spec.task_count == 1 else task
    status = None if terminal else await client.status(job, asked)
    told = _of_job(job, terminal, status)
    if task is None:
        return told
    of_task = await _of_task(job, task, status)
    document = {**told.document, "task": of_task.document}
    return Answer([*of_task.lines, f"  {job.id}: {told.lines[0][2:]}"], document)


def _of_job(job: Job, terminal: Terminal | None, status: JobStatus | None) -> Answer:
    """Say what became of a job, or what it waits for."""
    if terminal is not None:
        error = error_of(terminal)
        state, why = str(terminal.state), str(error) if error else ""
        head = f"✗ ended: {why}" if error else "✓ ended: succeeded"
    elif status is None:
        state, why = "queued", "it is stored, and no broker has taken it up yet"
        head = f"○ waits: {why}"
    else:
        state, why = status.state, status.why
        if job.spec.task_count == 1 and status.task and status.task.state == "running":
            why = status.task.why  # with whom
        head = f"● runs{': ' * bool(why)}{why}" if status.tasks_running else f"○ waits: {why}"
    fields: dict[str, Any] = {"job": job.id, "name": job.spec.name, "state": state, "why": why}
    counts = terminal or status
    if counts is not None:
        names = ("tasks_total", "tasks_succeeded", "tasks_failed")
        fields |= {name: getattr(counts, name) for name in names}
    running = fields["tasks_running"] = status.tasks_running if status else 0
    line = f"  {job.id}  {job.spec.name}".rstrip()
    if job.spec.task_count > 1 and counts is not None:
        line += f"  {counts.tasks_total} tasks: {counts.tasks_succeeded} succeeded, "
        line += f"{counts.tasks_failed} failed, {running} run"
    return Answer([printable(head), printable(line), *_next(job, terminal)], fields)


def _next(job: Job, terminal: Terminal | None) -> list[str]:
    """Name the verbs that go on from here, to be copied."""
    if terminal is None:
        verbs = ["logs -f", "get --wait", "cancel"]
    elif terminal.state == "succeeded":
        verbs = ["get"]
    else:
        verbs = ["get", "retry"] if terminal.result or terminal.tasks_succeeded else ["retry"]
    return [f"    lender {verb} {job.id}" for verb in verbs]


async def _of_task(job: Job, task: int, status: JobStatus | None) -> Answer:
    """Say where a task is: of one without a result the broker knows it."""
    if status is not None and status.task is not None:
        state, why = str(status.task.state), status.task.why
        head = f"● task {task} runs: {why}" if state == "running" else f"○ task {task} waits: {why}"
    elif (record := await job.task(task)) is not None:
        state, why = record.result.state, outcome_of(record.result)
        mark = "✗" if state == "failed" else "✓"
        head = f"{mark} task {task} {why}: lender {key(record.lender)}, attempt {record.attempt}"
    else:
        state, why = "unknown", "it has no result, and no broker tells where it is"
        head = f"○ task {task}: {why}"
    return Answer([printable(head)], {"task": task, "state": state, "why": why})

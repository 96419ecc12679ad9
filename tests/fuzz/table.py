"""All targets, and why the other places that take bytes apart need none."""

from typing import Final

from fuzz import (
    broker,
    client,
    desktop,
    devices,
    enrolling,
    home,
    lender,
    link,
    metrics,
    owner_files,
    owner_verbs,
    sandbox,
    wire,
)
from fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    one.name: one
    for room in (
        *(wire, broker, enrolling, home, lender, link, metrics),
        *(owner_files, owner_verbs, sandbox, client, desktop, devices),
    )
    for one in room.TARGETS
}

_OWN_WORDS: Final = "the words of whoever typed the command, or wrote the program that calls"
_KERNEL: Final = "what the kernel tells, in a form of its own"
_OURS: Final = "written by this very process, or by its own child, in the same run"

NOT_FROM_OUTSIDE: Final[dict[str, str]] = {
    "broker.core.effects.FeedWork.lease": _OURS,
    "broker.deployment.completion.complete": "tokens that the operator's own key signed",
    "broker.deployment.servers.Servers.update": "tokens that the operator's own key signed",
    "broker.deployment.overseer._token": "written whole by the operator's own command",
    "broker.deployment.rotation._begun": "written whole by the operator's own command",
    "broker.core.jobs.endings._digest": "a hash that was just made",
    "broker.service.letting_in.OperatorsDesk.ask": "what the operator's own broker answers",
    "broker.service.letting_in.said_by": _OWN_WORDS,
    "lender.daemon.results.ResultMaker.make": "outcomes, which crossed as bytes and were checked",
    "lender.protocol.enrolment.code_of": "a hash that was just made",
    "lender.cli.grant._not_after": _OWN_WORDS,
    "lender.cli.job_file._predecessor": _OWN_WORDS,
    "lender.cli.job_file._request": _OWN_WORDS,
    "lender.cli.job_file.read_job_file": _OWN_WORDS,
    "lender.cli.job_options._predecessor": _OWN_WORDS,
    "lender.client.executor.outcomes._unpickled": "opened for a caller who trusts every lender",
    "lender.client.executor.program.program.call": "runs inside of the sandbox of the job itself",
    "lender.client.functions.FunctionJob.value": "passes on to lender.client.values.decode",
    "lender.client.functions.FunctionJob.values": "passes on to lender.client.values.decode",
    "lender.client.functions.call_for_each.call": "runs inside of the sandbox of the job itself",
    "lender.client.job_ids.job_id": "random bytes that were just made",
    "lender.daemon.peer.on_linux": _KERNEL,
    "lender.daemon.peer.on_mac": _KERNEL,
    "lender.link.embedded.EmbeddedServer._reported_port": _OURS,
    "lender.sandbox.egress.connection._unacknowledged_bytes": _KERNEL,
    "lender.sandbox.egress.egress._be_proxy": _OURS,
    "lender.sandbox.files.rootfs._read_about": "written whole by this user, in this very boot",
    "lender.sandbox.frames.receive_one": "what the launcher tells its child, before any job runs",
    "lender.sandbox.processes.libproc.Processes._used": _KERNEL,
    "lender.sandbox.processes.libproc.Processes.pids": _KERNEL,
    "lender.sandbox.processes.libproc.Processes.read": _KERNEL,
    "lender.sandbox.processes.libproc.tick_ns": _KERNEL,
    "lender.sandbox.runtimes.bubblewrapped.BubblewrappedTask._hear": (
        "what bubblewrap says by a pipe that its guest can't reach "
        "(test_attack_secrets.py::test_the_pipes_of_its_init_are_out_of_reach)"
    ),
    "lender.sandbox.runtimes.python_channel.Channel._said_by": _KERNEL,
    "lender.sandbox.runtimes.python_inside._Inside._load": "runs inside of the job's own sandbox",
    "workloads.gpu-matmul.matmul.read": "runs inside of the sandbox of the job itself",
    "lender.sandbox.trials.seen.of_probe": "what our own probe says, before any job runs",
    "lender.sandbox.runtimes.python_inside._Inside.serve": "runs inside of the job's own sandbox",
    "lender.sandbox.runtimes.python_inside._Inside._load_another": (
        "runs inside of the job's own sandbox"
    ),
}
"""By place: where its bytes come from."""

"""What can go wrong for a submitter. Each error says what happened and what to do about it."""

# ruff: noqa: N818  # these read as what happened, and asyncio has a CancelledError already

from lender.protocol.result import LimitName, TaskResult, Terminal
from lender.protocol.strangers_text import visible

_SAID_BY: dict[LimitName, tuple[str, str]] = {
    "memory": ("--mem", "limits.memory_bytes"),
    "time": ("--timeout", "limits.time_s"),
    "output": ("--output", "limits.output_bytes"),
    "disk": ("--scratch", "limits.scratch_bytes"),
    "processes": ("--processes", "limits.processes"),
}
"""Where a limit is said: on the command line, and by a program."""


class ClientError(Exception):
    """Base of all of them.

    Attributes:
        mend: what the person who reads it can do.
    """

    def __init__(self, problem: str, mend: str) -> None:
        # Some of the words are a lender's, and whoever does not catch it has it printed.
        super().__init__(visible(f"{problem}: {mend}"))
        self.mend = mend


class KeyFault(ClientError):
    """The submitter's key is missing, unreadable, or readable by others."""


class Unreachable(ClientError):
    """No NATS server, or no broker behind it, answered in time."""


class NotAdmitted(ClientError):
    """The NATS server does not know this submitter's key, or forbids what was asked."""


class JobIdTaken(ClientError):
    """The job id was used before, for another specification."""

    def __init__(self, job: str) -> None:
        super().__init__(
            f"job id {job} is taken by another specification",
            "submit under a new id, or ask for that job's result",
        )
        self.job = job


class LedgerFull(ClientError):
    """The stream of submissions holds as many bytes as its operator allows."""

    def __init__(self) -> None:
        super().__init__(
            "the ledger is full, and takes no submission nor cancellation",
            "submit again later: it keeps each for 8 days; the operator may allow more bytes",
        )


class NoSuchJob(ClientError):
    """The ledger holds no job of this submitter under that id."""

    def __init__(self, job: str) -> None:
        super().__init__(
            f"no job {job}",
            "list yours with `lender jobs`; the ledger keeps a job for 8 days",
        )
        self.job = job


class ContentFault(ClientError):
    """A blob that is missing or damaged, or an output that may not be written."""


class Forged(ClientError):
    """The ledger holds something as a job of this submitter's that its key has not signed so."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(
            f"the server gives something else as job {job} than what you signed ({reason})",
            "don't submit it again from there, and tell the operator: the server may be in "
            "somebody else's hands",
        )
        self.job = job


class UntrustedResult(ClientError):
    """A result was not signed by a lender that is trusted, or was changed after that.

    Attributes:
        job: whose.
        lender: who is said to have run it.
    """

    def __init__(self, job: str, lender: str | None, reason: str) -> None:
        of = f" of lender {lender}" if lender else ""
        super().__init__(
            f"a result{of} for job {job} is not to be trusted ({reason})",
            "submit the job again, and tell the operator: whoever passes results on may have "
            "changed it; or trust that lender as well, if you know it",
        )
        self.job = job
        self.lender = lender


class UntrustedValue(ClientError):
    """A value came as a pickle; to open it would let the lender that sent it run code here."""

    def __init__(self) -> None:
        super().__init__(
            "the task's value is a pickle, and a pickle from a lender is a program from a stranger",
            "return plain data (numbers, text, bytes, lists, tuples, dicts), or pass trust=True "
            "where every lender of the job may run what it likes on this machine",
        )


class Rejected(ClientError):
    """The job breaks a rule of the protocol and never ran.

    Attributes:
        field: dotted path of the field at fault.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        mend = "mend that field and submit under a new job id"
        if field == "submitter":
            mend = "then submit again, under a new job id"
        elif field == "quota":
            mend = "then submit under a new job id, or ask the operator for more"
        super().__init__(f"rejected, {field}: {reason}", mend)
        self.field = field
        self.reason = reason


class JobEnded(ClientError):
    """Base of the ends of a job that are no success.

    Attributes:
        terminal: the job's committed last word.
    """

    def __init__(self, terminal: Terminal, problem: str, mend: str) -> None:
        super().__init__(f"job {terminal.job} {problem}", mend)
        self.terminal = terminal


class JobFailed(JobEnded):
    """At least one task failed: its exit code, the limit that it hit, or the error say why."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal, f"failed{_failure_of(terminal)}", _mend_of(terminal.result))

    @property
    def exit_code(self) -> int | None:
        """The task's exit code; None for an array and where the task never exited."""
        return self.terminal.result.exit_code if self.terminal.result else None


class TaskFailed(ClientError):
    """A task of an array failed for good.

    Attributes:
        result: what became of it; the end of its standard error is in there.
    """

    def __init__(self, job: str, result: TaskResult) -> None:
        problem = f"task {result.task} of job {job} failed{_failure_of_task(result)}"
        super().__init__(problem, _mend_of(result))
        self.result = result


class Cancelled(JobEnded):
    """The job was cancelled before it had ended, or one that it waited for did not succeed."""

    def __init__(self, terminal: Terminal) -> None:
        if terminal.field == "after":
            super().__init__(terminal, f"was cancelled: {terminal.reason}", "submit both again")
        else:
            super().__init__(terminal, "was cancelled", "submit it again if that was not intended")


class Expired(JobEnded):
    """The job had not ended by its `not_after`, or not begun within its `queue_s`."""

    def __init__(self, terminal: Terminal) -> None:
        waited = f" ({terminal.reason})" if terminal.reason else ""
        is_queue = terminal.field == "queue_s"
        said_by = "--queue-time, queue_s" if is_queue else "--deadline, deadline_s"
        super().__init__(
            terminal,
            f"expired{waited}",
            f"give it more time ({said_by}), or ask an owner to grant its workload",
        )


def error_of(terminal: Terminal) -> ClientError | None:
    """Return the error that a terminal record stands for; None for a success."""
    match terminal.state:
        case "succeeded":
            return None
        case "failed":
            return JobFailed(terminal)
        case "cancelled":
            return Cancelled(terminal)
        case "expired":
            return Expired(terminal)
        case "rejected":
            return Rejected(terminal.field or "payload", terminal.reason or "no reason given")


def outcome_of(result: TaskResult) -> str:
    """Say in words what became of a task."""
    return f"failed{_failure_of_task(result)}" if result.state == "failed" else "succeeded"


def _failure_of(terminal: Terminal) -> str:
    result = terminal.result
    if result is None:
        counts = f"{terminal.tasks_failed} of {terminal.tasks_total} tasks"
        # Brokers say as much in the reason, too.
        more = terminal.reason and terminal.reason != f"{counts} failed"
        return f" in {counts}" + (f" ({terminal.reason})" if more else "")
    return _failure_of_task(result)


def _failure_of_task(result: TaskResult) -> str:
    if result.limit is not None:
        return f" at its {result.limit} limit"
    if result.error is not None:
        return f" ({result.error})"
    return f" with exit code {result.exit_code}"


def _mend_of(result: TaskResult | None) -> str:
    if result is None:
        return "read the failed tasks' standard error in their results (`lender logs JOB`)"
    if result.limit is not None:
        option, field = _SAID_BY[result.limit]
        return (
            f"raise the {result.limit} limit of the job ({option}, {field}), "
            "or make the task smaller"
        )
    return "read its standard error"

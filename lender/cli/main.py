"""Entry point of `lender`: finds the verb's module and hands it the arguments.

A verb's module has a docstring (its help; the first line is its summary), an `EXAMPLES` text,
`configure(parser)` and `run(args) -> int`. Modules load lazily: `lender pause` must not pay for
what `lender submit` imports. A module may have `DEFAULTS`, the options' values where none is
typed: then argparse is not even loaded for the bare verb.
"""

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import NoReturn

from lender.cli import words
from lender.cli.exits import CommandError, Exit

VERBS = {
    "status": "what this machine lends right now, and to whom",
    "why": "why it lends right now or not; why your job waits",
    "top": "your use against lent use, on one screen",
    "pause": "stop lending now; every process stands still before this returns",
    "resume": "clear a pause or a drain",
    "drain": "take nothing new; what runs may finish until a deadline",
    "grant": "agree, in your own words, to run a submitter's workload",
    "grants": "list what you have agreed to",
    "revoke": "withdraw grants; their work is killed and wiped at once",
    "log": "what ran here, for whom, and why it stopped",
    "policy": "your limits, and what others would have lent",
    "agent": "tell lenderd, from your session, whether you are here",
    "install": "make lenderd a service, which starts by itself",
    "uninstall": "undo that",
    "home": "let your home automation pause this machine: its key, and what to paste",
    "doctor": "check this machine, read-only, with a mend for each fault",
    "preflight": "look before you join a fleet, read-only, with a mend for each fault",
    "completion": "print a shell's completion script",
    "enroll": "have a fleet let this machine in, or you as a submitter",
    "keygen": "make a submitter's key",
    "submit": "run a command or a wasm module on somebody's machine",
    "map": "run an array of tasks",
    "run": "run a job that is written down, or a wasm module",
    "validate": "say what is wrong with a job file",
    "workloads": "list the kinds of work that can be granted by name",
    "jobs": "list your jobs",
    "logs": "see what a job's tasks wrote, or with -f write",
    "get": "fetch a job's result and files",
    "cancel": "end a job",
    "retry": "run what failed of a job once more",
}


_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        # Also with PYTHONUNBUFFERED: what can't be written is found out in one place, at the end.
        sys.stdout.reconfigure(write_through=False)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        _print_help()
        return _flushed(verb, Exit.DONE)
    if verb not in VERBS:
        words.complain(f"lender: no verb {verb!r}{_nearest(verb)}; see lender --help")
        return Exit.USAGE
    try:
        module = _load(verb)
    except ModuleNotFoundError as error:
        from lender.service.program import incomplete  # noqa: PLC0415 - else for nobody

        words.complain(f"lender {verb}: {incomplete(error)}")
        return _flushed(verb, Exit.FAILED)
    try:
        status: int = module.run(_options(verb, module, arguments[1:]))
    except CommandError as error:
        words.complain(f"lender {verb}: {error}")
        status = error.code
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:
        status = Exit.FAILED
    except OSError as error:
        # A disk that is full, or gone: while something long was printed.
        if error.filename is not None or not _is_of_full_disk(error):
            raise
        words.complain(f"lender {verb}: can't write: {error.strerror}")
        status = Exit.FAILED
    return _flushed(verb, status)


def command() -> NoReturn:
    """Run the verb that was typed and end the process.

    At once: a verb has put in order what it used. Python would take itself apart first, which is a
    tenth of what `lender status` takes.
    """
    status = main()
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    if status == _INTERRUPTED:
        _end_by_signal()
    os._exit(status)


def _end_by_signal() -> None:
    """End as who was interrupted: a shell then ends its loop, and begins a new line (bash(1))."""
    import signal  # noqa: PLC0415  # 1 ms, for those who are

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _load(verb: str) -> ModuleType:
    """Load a verb's module; what that makes is no garbage to look for, which took a tenth of it."""
    gc.disable()
    try:
        # importlib itself loads two more modules, for the same.
        return __import__(f"lender.cli.{verb}", fromlist=[verb])
    finally:
        gc.enable()


def _options(verb: str, module: ModuleType, arguments: list[str]) -> object:
    defaults = getattr(module, "DEFAULTS", None)
    if defaults is not None and not arguments:
        return SimpleNamespace(**defaults)
    from lender.cli.parsing import parse  # noqa: PLC0415  # loads argparse: 10 ms

    return parse(verb, module, arguments)


def _is_of_full_disk(error: OSError) -> bool:
    import errno  # noqa: PLC0415  # rarely needed

    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _flushed(verb: str, status: int) -> int:
    """Write out what was printed; a reader that went away (`| head`) is no fault to report.

    Where nothing can be written (a full disk) what a verb said is said on standard error, so it
    counts as told; a document is not.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What was done is done. Python flushes again at exit, and would complain of it there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            words.complain(f"lender {verb}: can't write its answer: {error.strerror}", *words.said)
            return status if words.said else status or Exit.PARTIAL
    return status


def _print_help() -> None:
    print("usage: lender VERB [options]; lender VERB --help tells more, with examples\n")
    for verb, summary in VERBS.items():
        print(f"  {verb:<10} {summary}")


def _nearest(verb: str) -> str:
    import difflib  # noqa: PLC0415  # only a mistyped verb pays for it

    close = difflib.get_close_matches(verb, VERBS, n=1)
    return f", did you mean {close[0]!r}?" if close else ""

"""Entry point of `lender`: finds the verb's module and hands it the arguments.

A verb's module has a docstring (its help; the first line is its summary), an `EXAMPLES` text,
`configure(parser)` and `run(args) -> int`. Modules load lazily: `lender pause` must not pay for
what `lender submit` imports.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from lender.cli.exits import CommandError, Exit

VERBS = {
    "status": "what this machine lends right now, and to whom",
    "pause": "stop lending now; every process stands still before this returns",
    "resume": "clear a pause",
    "grant": "agree, in your own words, to run a submitter's workload",
    "grants": "list what you have agreed to",
    "revoke": "withdraw grants; their work is killed and wiped at once",
    "log": "what ran here, for whom, and why it stopped",
    "doctor": "check this machine, read-only, with a mend for each fault",
    "keygen": "make a submitter's key",
    "submit": "run a command or a wasm module on somebody's machine",
    "map": "run an array of tasks",
    "jobs": "list your jobs",
    "get": "fetch a job's result and files",
    "cancel": "end a job",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        _print_help()
        return Exit.DONE
    if verb not in VERBS:
        print(f"lender: no verb {verb!r}{_nearest(verb)}; see lender --help", file=sys.stderr)
        return Exit.USAGE
    module = importlib.import_module(f"lender.cli.{verb}")
    try:
        status: int = module.run(_parser(verb, module).parse_args(arguments[1:]))
    except CommandError as error:
        print(f"lender {verb}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away; Python would complain again while flushing at exit.
        sys.stdout = None
        return Exit.FAILED
    return status


def _parser(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lender {verb}",
        description=module.__doc__,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    return parser


def _print_help() -> None:
    print("usage: lender VERB [options]; lender VERB --help tells more, with examples\n")
    for verb, summary in VERBS.items():
        print(f"  {verb:<8} {summary}")


def _nearest(verb: str) -> str:
    import difflib  # noqa: PLC0415  # only a mistyped verb pays for it

    close = difflib.get_close_matches(verb, VERBS, n=1)
    return f", did you mean {close[0]!r}?" if close else ""

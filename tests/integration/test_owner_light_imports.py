"""The owner's urgent verbs load the standard library and this project, and little of both."""

import os
import subprocess
import sys

import pytest
from owner_machine import LENDER, Machine, grant, machine

__all__ = ["machine"]

REPORT = """
import os, runpy, sys
os._exit = sys.exit
before = set(sys.modules)
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
print("modules:", *sorted(set(sys.modules) - before), file=sys.stderr)
"""

# Each of them costs milliseconds, and a bare verb with lenderd there needs none of them.
SLOW = {
    "argparse", "asyncio", "base64", "curses", "dataclasses", "datetime", "difflib", "email",
    "encodings.idna", "errno", "fractions", "gettext", "hashlib", "importlib.metadata", "inspect",
    "ipaddress", "locale", "logging", "math", "multiprocessing", "pathlib", "pwd", "queue",
    "random", "selectors", "shutil", "signal", "socket", "ssl", "statistics", "string", "struct",
    "subprocess", "tempfile", "textwrap", "tomllib", "unittest", "urllib", "uuid", "zoneinfo",
    "_strptime", "lender.protocol.reach", "lender.state.consent_files", "lender.state.receipts",
}  # fmt: skip


def loaded(machine: Machine, *arguments: str) -> set[str]:
    """What the real command adds to what Python itself has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(LENDER), *arguments],
        env={**os.environ, "LENDER_STATE": str(machine.state.path), "LANG": "en_US.UTF-8"},
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stdout
    names = set(done.stderr.partition("modules: ")[2].split())
    assert "lender.cli.main" in names
    return names


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        ("pause",),
        ("pause", "--for", "2h", "--json"),
        ("resume",),
        ("drain",),
        ("status", "--json"),
        ("why",),
        ("grants",),
        ("revoke", "--all"),
    ],
    ids=" ".join,
)
def test_nothing_third_party_is_loaded(
    machine: Machine, arguments: tuple[str, ...], *, daemon: bool
) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    if daemon:
        machine.daemon()
    names = loaded(machine, *arguments)
    ours = {"lender", "__main__", "__mp_main__"}
    tops = {name.partition(".")[0] for name in names}
    assert tops - ours - sys.stdlib_module_names <= {"sitecustomize", "usercustomize"}
    assert not names & {"asyncio", "ssl", "multiprocessing"}


@pytest.mark.parametrize("verb", ["pause", "status", "resume"])
def test_a_bare_verb_loads_nothing_slow(machine: Machine, verb: str) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    machine.daemon()
    assert loaded(machine, verb) & SLOW == set()


def test_a_bare_verb_has_the_options_that_its_parser_would_give() -> None:
    code = """
from lender.cli import drain, pause, resume, status, top, why
from lender.cli.parsing import parse
for verb in (drain, pause, resume, status, top, why):
    assert vars(parse("verb", verb, [])) == verb.DEFAULTS, verb
"""
    subprocess.run([sys.executable, "-c", code], timeout=90, check=True)

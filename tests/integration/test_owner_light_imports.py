"""The owner's urgent verbs load the standard library and this project, and no event loop."""

import subprocess
import sys

import pytest
from owner_machine import LENDER, Machine, grant, machine

__all__ = ["machine"]

REPORT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    pass
names = {name.partition(".")[0] for name in sys.modules}
print("modules:", *sorted(names), file=sys.stderr)
"""


@pytest.mark.parametrize("daemon", [False, True])
@pytest.mark.parametrize("verb", ["pause", "resume", "status", "grants", "revoke"])
def test_nothing_third_party_is_loaded(machine: Machine, verb: str, *, daemon: bool) -> None:
    machine.attempt("one", grant(machine.state, "G-1"))
    if daemon:
        machine.daemon()
    arguments = [verb, "--state", str(machine.state.path)]
    arguments += ["--all"] if verb == "revoke" else []
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(LENDER), *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout
    loaded = set(done.stderr.partition("modules: ")[2].split())
    assert "lender" in loaded
    ours = {"lender", "__main__", "__mp_main__"}
    hooks = {name for name in loaded if name.startswith(("__editable__", "_distutils", "_virtual"))}
    assert loaded - ours - hooks - sys.stdlib_module_names <= {"sitecustomize", "usercustomize"}
    assert not loaded & {"asyncio", "ssl", "multiprocessing"}

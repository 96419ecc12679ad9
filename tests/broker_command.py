"""`lender-broker` without a process for it: its start takes longer than nearly all it is asked."""

import contextlib
import io
import subprocess

from broker.service.main import main


def broker_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that neither serves nor speaks to a server."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

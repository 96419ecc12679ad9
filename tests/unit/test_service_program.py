import gc
import subprocess
import sys
from pathlib import Path

from lender.service import program


def test_what_was_printed_is_out_and_the_code_is_told() -> None:
    code = "import sys; from lender.service import program; print('said'); program.end(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"said\n", b"")


def test_what_cannot_be_printed_is_no_success() -> None:
    code = "from lender.service import program; print('said'); program.end(0)"
    with Path("/dev/full").open("wb") as full:
        assert (
            subprocess.run([sys.executable, "-c", code], stdout=full, check=False).returncode == 1
        )


def test_garbage_is_looked_for_again_once_all_is_loaded() -> None:
    with program.loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()

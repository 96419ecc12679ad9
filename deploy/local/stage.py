"""What a program needs that plays a fleet: a folder for it, and an end that cleans up."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A temporary folder that the lenders' user may enter."""
    folder = Path(tempfile.mkdtemp(prefix=f"lender-{name}-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end_on_sigterm() -> None:
    """Have SIGTERM end this process as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)

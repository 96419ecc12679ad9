"""Deletes what is kept of submitters; a fault is logged, since nobody waits to hear it."""

import asyncio
import logging
from pathlib import Path

from lender.state.purge import remove, set_aside

log = logging.getLogger(__name__)


def delete_soon(path: Path) -> asyncio.Future[None] | None:
    """Take a file or a folder out of the way at once, and free its disk space in the background.

    What a crash leaves of it is deleted by the next start, and by every purge.

    Returns:
        What ends with the deletion; None where there is nothing, or it can't be moved.
    """
    try:
        aside = set_aside(path)
    except OSError as error:
        log.warning("%s can't be deleted: %s", path, error)
        return None
    if aside is None:
        return None
    return asyncio.get_running_loop().run_in_executor(None, delete, aside)


def delete(path: Path) -> None:
    """Delete a file, or a folder and all below it; it need not be there. Blocks."""
    _freed_bytes, fault = remove(path)
    if fault:
        log.warning("%s can't be deleted: %s", path, fault)

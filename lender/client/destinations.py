"""Where an output may be written: under the folder that was named, whatever a lender says."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from lender.client.errors import ContentFault
from lender.protocol.job import RelativePath

_RELATIVE_PATH: TypeAdapter[str] = TypeAdapter(RelativePath)


def destination(folder: Path, name: str, declared: Iterable[str]) -> Path:
    """Return where the output `name` goes; folders on the way to it are made.

    Args:
        folder: what nothing is written outside of, symbolic links included.
        name: as the lender reported it.
        declared: the outputs that the job asked for; no other is taken.

    Raises:
        ContentFault: it was not asked for, is no relative path, or leads out of `folder`.
    """
    mend = "nothing was written; report the lender to your operator"
    if name not in declared:
        raise ContentFault(f"the job asked for no output {name!r}", mend)
    try:
        _RELATIVE_PATH.validate_python(name)
    except ValidationError as error:
        raise ContentFault(f"not a name for an output: {name!r}", mend) from error
    target = folder / name
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ContentFault(
            f"{target} lies outside of {folder} by a symbolic link",
            "remove that link or choose another folder",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `target` when all went well, and vanishes if not.

    Raises:
        ContentFault: it can't be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise ContentFault(
            f"can't write {target}: {error.strerror}", "choose another folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)

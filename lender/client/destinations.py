"""Where an output may be written: under the folder that was named, whatever a lender says."""

from collections.abc import Iterable
from pathlib import Path

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContentFault(
            f"can't make {target.parent}: {error.strerror}", "choose another folder"
        ) from error
    return target

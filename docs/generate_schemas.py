# noqa: INP001 - a script, run by its path
"""Write docs/schemas/: the JSON Schema of each message, made from the code.

`--check` writes nothing and fails when a file is missing, stale or left over.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from lender.protocol.enrolment import EnrolAnswer, EnrolRequest
from lender.protocol.job import JobSpec
from lender.protocol.lease import Control, Done, DoneReply, Lease, Offer
from lender.protocol.log_head import LogHead
from lender.protocol.query import Query, QueryReply
from lender.protocol.result import Chunk, Terminal
from lender.protocol.task_log import TaskLogPiece

FOLDER = Path(__file__).parent / "schemas"

MESSAGES: tuple[type[BaseModel], ...] = (
    JobSpec,
    Terminal,
    Chunk,
    Query,
    QueryReply,
    Lease,
    Offer,
    Control,
    Done,
    DoneReply,
    LogHead,
    TaskLogPiece,
    EnrolRequest,
    EnrolAnswer,
)


class Schema(GenerateJsonSchema):
    """Says how byte strings look in JSON."""

    def bytes_schema(self, _schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """A byte string in base64, as `lender.protocol.codec` writes and reads it."""
        # A maximum length counts bytes, not characters of base64: it is not said.
        return {"type": "string", "contentEncoding": "base64"}


def schemas() -> Mapping[str, str]:
    """Return each file's name and content."""
    return {f"{message.__name__}.json": _text(message) for message in MESSAGES}


def stale(folder: Path) -> list[str]:
    """Return the names of the files that differ from what the code says."""
    wanted = schemas()
    names = {path.name for path in folder.glob("*")} | set(wanted)
    return sorted(name for name in names if _content(folder / name) != wanted.get(name))


def _text(message: type[BaseModel]) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **message.model_json_schema(mode="validation", schema_generator=Schema),
    }
    return json.dumps(schema, indent=2) + "\n"


def _content(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    names = stale(FOLDER)
    if arguments == ["--check"]:
        sys.stderr.writelines(f"{FOLDER / name} is stale; run make schemas\n" for name in names)
        return 1 if names else 0
    FOLDER.mkdir(exist_ok=True)
    wanted = schemas()
    for name in names:
        path = FOLDER / name
        if name in wanted:
            path.write_text(wanted[name])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

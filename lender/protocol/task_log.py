"""What a task writes while it runs, on its way to whoever follows the job."""

from typing import Literal

from pydantic import Field

from lender.protocol import bounds
from lender.protocol.codec import Bytes, Open


class TaskLogPiece(Open):
    """A piece of one task's log, as its sandbox told it; published on `log.S.J.L`.

    Published once, to whoever listens, and not kept: what counts is the task's result, which has
    the log's end. A higher attempt begins at 0 again.

    `offset_bytes` is where `content` stands in the log of the attempt: who has read less of it has
    missed the difference. `left_out_bytes` is what the lender did not publish of this lease since
    its last message, of this task and of those before it.
    """

    v: Literal[1] = 1
    task: int = Field(ge=0, lt=bounds.ARRAY_COUNT_MAX)
    attempt: int = Field(ge=1, le=1 << 53)
    offset_bytes: int = Field(ge=0, le=bounds.LOG_BYTES_MAX)
    content: Bytes = Field(max_length=bounds.LOG_PIECE_BYTES_MAX)
    left_out_bytes: int = Field(default=0, ge=0, le=bounds.LOG_BYTES_MAX)

"""Reading RESULTS: a record is a chunk of an array's results or a job's terminal record."""

from collections.abc import Mapping

from lender.client.errors import ContentFault
from lender.link.api import JetStream
from lender.protocol import codec, streams, subjects
from lender.protocol.errors import ProtocolError
from lender.protocol.result import Chunk, Terminal
from lender.protocol.result_run import decode_results

Record = Chunk | Terminal


def decode_record(subject: str, headers: Mapping[str, str], payload: bytes) -> Record:
    """Decode what is stored at `subject`, or a copy of it.

    Raises:
        ContentFault: it can't be read; a newer broker wrote it.
    """
    try:
        content_type = codec.content_type_of(headers.get(codec.CONTENT_TYPE_HEADER))
        if subjects.parse_job_subject(subject).first_task is None:
            return codec.decode(Terminal, payload, content_type)
        return decode_results(Chunk, payload, content_type)
    except ProtocolError as error:
        raise ContentFault(f"can't read {subject} ({error})", "update this client") from error


async def read_record(jetstream: JetStream, subject: str) -> Record | None:
    """Return what is stored at `subject`, None if there is nothing yet.

    Raises:
        ContentFault: it can't be read.
        LinkError: the server can't be asked now.
    """
    stored = await jetstream.get_last(streams.RESULTS, subject)
    return decode_record(subject, stored.headers, stored.payload) if stored else None

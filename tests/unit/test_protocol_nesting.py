"""Few bytes that announce much take no more memory than a bound."""

import struct
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from lender.daemon.signal_rows import BlockError, unpack
from lender.protocol.bounds import ARRAY_RANGES_MAX, LIST_ENTRIES_MAX
from lender.protocol.codec import decode
from lender.protocol.errors import ProtocolError
from lender.protocol.lease import Done, Offer
from lender.sandbox.frames import HEADER_BYTES_MAX, Decoder, FrameError

MIB = 1 << 20


def lists_in_lists(size_bytes: int) -> bytes:
    """Lists in lists, each of which says that it has as many entries as there are bytes."""
    opened = struct.pack(">BI", 0xDD, size_bytes) * 1000
    return opened + b"\xc0" * (size_bytes - len(opened))


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("model", [Done, Offer])
@pytest.mark.parametrize("entries", [LIST_ENTRIES_MAX, 1 << 18, 1 << 23])
def test_lists_in_lists_are_refused_before_room_is_made_for_them(
    model: type[Done] | type[Offer], entries: int
) -> None:
    payload = lists_in_lists(entries)
    with pytest.raises(ProtocolError):
        decode(model, payload)
    assert tracemalloc.get_traced_memory()[1] < 140 * MIB


@pytest.mark.usefixtures("traced")
def test_a_sandbox_that_was_taken_over_fills_no_memory_of_the_daemons() -> None:
    header = lists_in_lists(HEADER_BYTES_MAX)
    with pytest.raises(FrameError):
        Decoder(0).feed(struct.pack("!IIB", len(header), 0, 0) + header)
    assert tracemalloc.get_traced_memory()[1] < 60 * MIB


@pytest.mark.usefixtures("traced")
def test_a_block_of_readings_that_grows_a_thousandfold_is_none() -> None:
    block = zlib.compress(bytes(32 * MIB))
    tracemalloc.reset_peak()
    with pytest.raises(BlockError):
        unpack(block)
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB


def test_what_is_as_long_as_it_may_be_is_taken() -> None:
    assert LIST_ENTRIES_MAX > ARRAY_RANGES_MAX

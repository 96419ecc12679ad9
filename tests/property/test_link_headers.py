"""Header blocks are read as nats-py reads them, whatever bytes they are."""

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from lender.link.hardened import HardenedClient

_SPACES = (b" ", b"\t", b"\x1c", b"\x85", b"\xc2\xa0", b"\xe2\x80\xa8", b"\0")
_TEXTS = (b"Nats-Subject", b"Content-Type", b"value", b"\xe2\x82", b"\xff", b"\xf0\x9f")

pieces = st.one_of(
    st.sampled_from((b"\r\n", b"\r", b"\n", b":", *_SPACES)),
    st.sampled_from(_TEXTS),
    st.binary(max_size=4),
)


@given(st.lists(pieces, max_size=24).map(b"".join))
@example(b"A: b\r\nC:d\r\n\r\n")
@example(b"\x1cA: b\r\n: c\r\nA B: c\r\nnothing\r\n\xc3\xa9: d\r\nE: \xc2\xa0f\xe2")
def test_as_the_client_itself_reads_them(raw: bytes) -> None:
    assert HardenedClient._parse_header_lines(raw) == Client._parse_header_lines(raw)

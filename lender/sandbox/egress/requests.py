"""What a proxy is asked for: the head of a request, read strictly (RFC 9110, RFC 9112). Pure."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

HEAD_END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 16 << 10

_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,8192}) HTTP/1\.[01]")
# What surrounds a value is its reader's to take off: each more way to divide spaces among three
# parts is one more that a hostile line has tried.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What a name can't end in, as it would be taken for an address: 1, 0x7f (WHATWG URL, 3.5).
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_NAME_CHARS_MAX = 253
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_HTTP_PORT = 80
# Of this connection alone, not for the server (RFC 9110, 7.6.1).
_OF_THE_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"}
)


class BadRequestError(Exception):
    """It is none that is understood.

    Attributes:
        status: how it is answered.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Request(NamedTuple):
    """Where somebody wants to get to.

    Attributes:
        host: a name in lower case, without a dot at its end, or an address in its one usual form.
        port: 1 to 65535.
        opening: what the server is told first; empty for a tunnel.
        answer: what the client is told once the server is reached; empty where the server answers.
    """

    host: str
    port: int
    opening: bytes
    answer: bytes


def parse(head: bytes) -> Request:
    """Read the head of a request, with the empty line that ends it.

    Of a request to a server in clear, the connection ends with its answer: so nothing else can
    follow on it.

    Raises:
        BadRequestError: it asks a proxy for nothing, or in a way that others might read otherwise.
    """
    first, *rest = head.removesuffix(HEAD_END).split(b"\r\n")
    line = _LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(one) for one in rest]
    if line is None or not all(fields):
        raise BadRequestError(400, "no well-formed request")
    method, target = line[1], line[2].decode()
    if method == b"CONNECT":
        host, port = _place(target, None)
        return Request(host, port, b"", b"HTTP/1.1 200 Connection established\r\n\r\n")
    if not target.lower().startswith("http://"):
        raise BadRequestError(400, "ask by CONNECT host:port, or for http://host/...")
    authority, path = re.fullmatch(r"([^/?#]*)([^#]*).*", target[len("http://") :]).groups()  # type: ignore[union-attr]  # it matches anything
    host, port = _place(authority, _HTTP_PORT)
    path = path if path.startswith("/") else f"/{path}"
    told = {
        one.strip().lower()
        for f in fields
        if f and _is(f, b"connection")
        for one in f[2].split(b",")
    }
    dropped = _OF_THE_HOP | told | {b"host"}
    kept = [f[0] for f in fields if f and f[1].lower() not in dropped]
    # The server is told the host that was judged, whatever stands in Host (RFC 9112, 3.2.2).
    lines = [
        b"%s %s HTTP/1.1" % (method, path.encode()),
        b"Host: " + authority.encode(),
        *kept,
        b"Connection: close",
    ]
    return Request(host, port, b"\r\n".join(lines) + HEAD_END, b"")


def _is(field: re.Match[bytes], name: bytes) -> bool:
    return field[1].lower() == name


def _place(authority: str, usual_port: int | None) -> tuple[str, int]:
    """The host and the port that an authority names; without one the usual, if there is one."""
    bracketed = authority.startswith("[")
    host, colon, port = authority.rpartition("]" if bracketed else ":")
    if bracketed:
        host, colon, port = host[1:], port[:1], port[1:]
    elif not colon:
        host, port = authority, ""
    if not colon and usual_port is not None:
        port = str(usual_port)
    elif colon not in (":", "") or not _PORT.fullmatch(port):
        raise BadRequestError(400, "no port")
    if int(port) > 65535:
        raise BadRequestError(400, "no port")
    return (_address6(host) if bracketed else _host(host.lower())), int(port)


def _address6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise BadRequestError(400, "no address") from error
    if address.scope_id is not None:
        raise BadRequestError(400, "no address of the internet's")
    return str(address)


def _host(text: str) -> str:
    name = text.removesuffix(".")
    if _NUMBER.fullmatch(name):
        try:
            return str(IPv4Address(name))
        except AddressValueError as error:
            raise BadRequestError(
                400, "no address, or in a form that is read in two ways"
            ) from error
    if len(name) > _NAME_CHARS_MAX or not _NAME.fullmatch(name):
        raise BadRequestError(400, "no host")
    return name

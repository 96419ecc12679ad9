"""What a proxy takes for a request, and what it tells the server of it."""

import pytest

from lender.sandbox.egress.requests import BadRequestError, Request, parse


def asked(line: str, *fields: str) -> Request:
    return parse("".join(f"{one}\r\n" for one in (line, *fields, "")).encode())


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("a.org:443", "a.org", 443),
        ("A.Org.:443", "a.org", 443),
        ("93.184.216.34:80", "93.184.216.34", 80),
        ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
        ("[::ffff:127.0.0.1]:80", "::ffff:7f00:1", 80),
        ("xn--bcher-kva.example:1", "xn--bcher-kva.example", 1),
    ],
)
def test_a_tunnel_names_its_end(target: str, host: str, port: int) -> None:
    request = asked(f"CONNECT {target} HTTP/1.1", f"Host: {target}")
    assert request[:3] == (host, port, b"")
    assert request.answer == b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "place", "origin"),
    [
        ("http://a.org/b?c#d", ("a.org", 80), "GET /b?c HTTP/1.1\r\nHost: a.org\r\n"),
        ("HTTP://A.org", ("a.org", 80), "GET / HTTP/1.1\r\nHost: A.org\r\n"),
        ("http://a.org?b", ("a.org", 80), "GET /?b HTTP/1.1\r\nHost: a.org\r\n"),
        ("http://a.org:81/", ("a.org", 81), "GET / HTTP/1.1\r\nHost: a.org:81\r\n"),
        ("http://[::1]/", ("::1", 80), "GET / HTTP/1.1\r\nHost: [::1]\r\n"),
    ],
)
def test_a_request_in_clear_becomes_the_servers_own(
    target: str, place: tuple[str, int], origin: str
) -> None:
    request = asked(f"GET {target} HTTP/1.0")
    assert request == (*place, f"{origin}Connection: close\r\n\r\n".encode(), b"")


def test_the_server_hears_the_host_that_was_judged_and_nothing_of_the_hop() -> None:
    opening = asked(
        "POST http://a.org/ HTTP/1.1",
        *("Host: internal", "Content-Length: 3", "X-Secret: 1", "x-kept:2", "Connection: x-secret"),
        *("Proxy-Authorization: Basic x", "Keep-Alive: 5", "Upgrade: h2c"),
    ).opening
    assert opening == (
        b"POST / HTTP/1.1\r\nHost: a.org\r\nContent-Length: 3\r\nx-kept:2\r\n"
        b"Connection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "", "GET", "GET / HTTP/1.1", "GET a.org HTTP/1.1", "OPTIONS * HTTP/1.1",
        "GET https://a.org/ HTTP/1.1", "GET ftp://a.org/ HTTP/1.1", "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1", "get http://a.org/ HTTP/1.1", "GET  http://a.org/ HTTP/1.1",
        "GET http://a.org/ HTTP/2.0", "GET http://a.org/ b HTTP/1.1", "GET http://a.org/",
        "GET http://u@a.org/ HTTP/1.1", "GET http://a.org:80:80/ HTTP/1.1",
        "GET http://a.org:/ HTTP/1.1", "GET http://a_b.org/ HTTP/1.1",
        "GET http://a.org\\@b/ HTTP/1.1",
        "GET http://a.org%2eb/ HTTP/1.1", "GET http://[::1/ HTTP/1.1", "GET http://::1/ HTTP/1.1",
        "CONNECT a.org HTTP/1.1", "CONNECT a.org: HTTP/1.1", "CONNECT a.org:0 HTTP/1.1",
        "CONNECT a.org:65536 HTTP/1.1", "CONNECT a.org:+80 HTTP/1.1", "CONNECT a.org:080 HTTP/1.1",
        "CONNECT :80 HTTP/1.1", "CONNECT .:80 HTTP/1.1", "CONNECT a..org:80 HTTP/1.1",
        "CONNECT [::1]80 HTTP/1.1", "CONNECT [::1]: HTTP/1.1", "CONNECT [a.org]:80 HTTP/1.1",
        "CONNECT [127.0.0.1]:80 HTTP/1.1", "CONNECT u@a.org:80 HTTP/1.1",
        f"CONNECT {'a.' * 130}org:80 HTTP/1.1",
        # IPv4 in forms that a resolver would read as an address.
        "CONNECT 127.1:80 HTTP/1.1", "CONNECT 2130706433:80 HTTP/1.1",
        "CONNECT 0x7f.0.0.1:80 HTTP/1.1",
        "CONNECT 0x7f000001:80 HTTP/1.1", "CONNECT 0177.0.0.1:80 HTTP/1.1",
        "CONNECT 127.0.0.1.0:80 HTTP/1.1", "CONNECT a.0x7f:80 HTTP/1.1",
        "CONNECT 127.0.0.01:80 HTTP/1.1",
        "CONNECT 1:80 HTTP/1.1", "CONNECT 256.1.1.1:80 HTTP/1.1",
    ],
)  # fmt: skip
def test_what_could_be_read_otherwise_is_refused(line: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        asked(line)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "field", ["no colon", " Folded: 1", "A : 1", "A: \x00", ": 1", "A: 1\rB: 2", "A\n: 1"]
)
def test_a_field_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(BadRequestError):
        asked("GET http://a.org/ HTTP/1.1", field)

"""The port of the metrics: what whoever reaches it sends."""

from http import HTTPStatus

from fuzz.target import Target
from lender.service.metrics_http import PATH, READY_PATH, judge

_HOSTS = (b"localhost", b"broker.lab", b"127.0.0.1", b"[::1]")


def _request(data: bytes) -> None:
    """Nobody gets a page who does not ask for it, and by a name of ours."""
    if judge(data, "broker.lab", (PATH, READY_PATH)) is HTTPStatus.OK:
        assert data.startswith((b"GET /metrics", b"HEAD /metrics", b"GET /ready", b"HEAD /ready"))
        assert b"\r\nhost:" in data.lower()


TARGETS = (
    Target(
        "metrics-request",
        _request,
        tuple(
            b"GET /metrics HTTP/1.1\r\nHost: " + host + b":9463\r\nAccept: */*\r\n\r\n"
            for host in _HOSTS
        ),
        words=(
            b"GET ",
            b"/metrics",
            b"/ready",
            b" HTTP/1.1",
            b"\r\n",
            b"Host:",
            b"evil.example",
            b"[::1]",
        ),
    ),
)

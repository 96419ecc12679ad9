"""lender.link: what a server, or whoever gets a message through one, has us read."""

import base64
import os
import ssl
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from core_world import ALICE

from broker.deployment.certificates import make_authority
from fuzz.messages import as_msg, read, written
from fuzz.target import Target, taken, why_not
from lender.link import api
from lender.link.connection import status
from lender.link.credentials import CredentialsError, connect_options, trusting, without_credentials
from lender.link.errors import LinkError
from lender.link.hardened import HardenedClient
from lender.link.message import delivery_info
from lender.link.server_words import greeting_of, leading_of, standing_of
from lender.link.vouching import believed, succeeds
from lender.link.way_in import read_way_in, token_of
from lender.protocol.signature import seed_from_entropy

T = TypeVar("T")

_KNOWN_AUTHORITY = make_authority("known", 0.0).certificate
_SEED = seed_from_entropy(bytes([7]) * 32)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    work.close()
    raise AssertionError("it waits")


def _headers(data: bytes) -> None:
    found = at_once(HardenedClient()._process_headers(data))
    assert found is None or all(isinstance(one, str) for pair in found.items() for one in pair)


def _answer(data: bytes) -> None:
    """An answer of JetStream's, in each place that one is read."""
    msg = as_msg(read(data))
    taken(LinkError, api.answer, msg)
    if status(msg) is None:
        taken(LinkError, api._stored, msg)
    else:
        taken(LinkError, api._absent, msg)
        taken(LinkError, api._pending_after, msg, "DIRECT.GET")
    body = taken(LinkError, api.answer, msg)
    if body is not None:
        taken(LinkError, api.number, body, "seq")
        taken(LinkError, api._stream_state, body)


def _acknowledgement(data: bytes) -> None:
    taken(LinkError, delivery_info, data.decode(errors="replace"))


def _server_words(data: bytes) -> None:
    """What a server says of itself before anybody trusts it."""
    taken(LinkError, greeting_of, data)
    taken(LinkError, standing_of, data)
    taken(LinkError, leading_of, data)


def _authorities(data: bytes) -> None:
    """Who may vouch for servers from now on, as a broker says: PEM, or what stands in it."""
    text = data.decode(errors="replace")
    if "-----" not in text:
        text = ssl.DER_cert_to_PEM_cert(data)
    if succeeds(text, _KNOWN_AUTHORITY):
        assert not succeeds(_KNOWN_AUTHORITY, text), "nobody takes it back"
        assert believed(_KNOWN_AUTHORITY.encode(), text)[-1] == _KNOWN_AUTHORITY.encode()


def _own_token(data: bytes) -> None:
    taken(ValueError, token_of, data.decode(errors="replace"))


def _credentials(data: bytes) -> None:
    handle, name = tempfile.mkstemp()
    try:
        os.write(handle, data)
        said = why_not(CredentialsError, connect_options, Path(name))
        secret = data.decode(errors="replace").strip()
        assert len(secret) < 8 or secret not in said
        taken(CredentialsError, trusting, Path(name))
        taken(CredentialsError, read_way_in, Path(name))
    finally:
        os.close(handle)
        Path(name).unlink()
    assert "@" not in without_credentials(data.decode(errors="replace"))


TARGETS = (
    Target(
        "link-headers",
        _headers,
        (
            b"NATS/1.0\r\nNats-Sequence: 7\r\nContent-Type: application/json\r\n\r\n",
            b"NATS/1.0 503\r\n\r\n",
            b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 1\r\n\r\n",
        ),
        words=(b"NATS/1.0", b"\r\n", b": ", b" 404", b"\r\n\r\n"),
    ),
    Target(
        "link-answer",
        _answer,
        (
            written("r", {}, b'{"stream": "JOBS", "seq": 7}'),
            written("r", {}, b'{"error": {"code": 400, "err_code": 10071, "description": "d"}}'),
            written(
                "r",
                {},
                b'{"state": {"messages": 1, "bytes": 2, "first_seq": 1, "last_seq": 1}}',
            ),
            written("r", {"Nats-Subject": "submit.S.J", "Nats-Sequence": "7"}, b"payload"),
            written("r", {"Status": "204", "Nats-Num-Pending": "12"}),
            written("r", {"Status": "404", "Description": "Message Not Found"}),
        ),
        ("lender.link.api.answer",),
        (b"Status", b"Nats-Num-Pending", b"Nats-Sequence", b"Nats-Subject", b'"error":', b'"seq":'),
    ),
    Target(
        "link-acknowledgement",
        _acknowledgement,
        (
            b"$JS.ACK.WORK.default.1.7.7.1700000000000000000.3",
            b"$JS.ACK.hub.ACCOUNT.WORK.default.1.7.7.1700000000000000000.3.token",
        ),
        words=(b"$JS.ACK.", b"."),
    ),
    Target(
        "link-server-words",
        _server_words,
        (
            (
                b'{"server_id":"N","server_name":"n","version":"2.15.1","max_payload":8388608,'
                b'"jetstream":true,"auth_required":true,"tls_required":true,"nonce":"abc"}'
            ),
            (
                b'{"server":{"name":"n","ver":"2.15.1","time":"2026-11-22T08:00:00.123456789Z"},'
                b'"data":{"user":"U","account":"A","permissions":{"publish":{"allow":["x.>"]},'
                b'"subscribe":{"deny":["y"]}}}}'
            ),
            b'{"broker":"x","protocol":1,"version":"0.1.0"}',
        ),
        ("lender.link.server_words.read_told",),
        (b'"time":', b'"allow":', b'"max_payload":', b"9" * 40, b"[["),
    ),
    Target(
        "link-authorities",
        _authorities,
        (
            _KNOWN_AUTHORITY.encode(),
            (_KNOWN_AUTHORITY + make_authority("later", 60.0).certificate).encode(),
            base64.b64decode("".join(make_authority("x", 1e9).certificate.splitlines()[1:-1])),
        ),
        words=(
            b"20501122080000Z",
            b"99991231235959Z",
            b"0101000000Z",
            b"-----BEGIN CERTIFICATE-----",
        ),
    ),
    Target(
        "link-own-token",
        _own_token,
        (
            b"eyJ0eXAiOiJKV1QifQ."
            + base64.urlsafe_b64encode(b'{"sub":"U","iss":"A","nats":{"tags":["class:*"]}}')
            + b".c2ln",
        ),
        ("lender.link.way_in.token_of",),
        (b".", b"W1tb"),
    ),
    Target(
        "link-credentials",
        _credentials,
        (
            _SEED,
            b"-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n"
            b"-----BEGIN USER NKEY SEED-----\n" + _SEED + b"\n------END USER NKEY SEED------\n",
            b"alice:correct-horse\n",
            b"nats://alice:correct-horse@nats.example.org:4222," + ALICE.public_key.encode(),
        ),
    ),
)

"""The control socket: real server and client; no input, client or handler takes it down."""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from owner_machine import until

from lender.daemon import control
from lender.daemon.control import ControlServer
from lender.daemon.control_client import UnreachableError, ask
from lender.daemon.peer import Peer

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Served:
    """A control server in a thread of its own, as its clients see it."""

    def __init__(self, path: Path, owner_uid: int, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.seen: list[tuple[dict[str, Any], Peer]] = []
        self.loop = loop
        self.released = asyncio.Event()
        handlers = {
            "status": self.status,
            "slow": self.slow,
            "broken": self.broken,
            "unspeakable": self.unspeakable,
        }
        self.server = ControlServer(path, handlers, owner_uid)
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), loop).result(5)

    def status(self, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        self.seen.append((request, peer))
        return {"phase": "lending", "filler": "x" * int(request.get("size", 0))}

    async def slow(self, request: dict[str, Any], peer: Peer) -> dict[str, Any]:
        await self.released.wait()
        self.seen.append((request, peer))
        return {}

    def broken(self, _request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        raise RuntimeError("a secret of the daemon")

    def unspeakable(self, _request: dict[str, Any], _peer: Peer) -> dict[str, Any]:
        return {"set": {1, 2}}

    def ask(self, verb: str, timeout_s: float = 5.0) -> dict[str, Any]:
        return ask(self.path, {"verb": verb}, timeout_s)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self.released.set)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(str(self.path))
        return connection

    def say(self, sent: bytes) -> dict[str, Any]:
        with self.connect() as connection:
            with contextlib.suppress(BrokenPipeError):  # it need not read all of it
                connection.sendall(sent)
            decoded: dict[str, Any] = json.loads(connection.makefile("rb").readline())
            return decoded

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(5)

    def end(self) -> None:
        self.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


Serve = Callable[..., Served]


@pytest.fixture(params=sorted(LOOPS))
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on both loops that lenderd may run on."""
    started: list[Served] = []

    def start(path: Path | None = None, owner_uid: int | None = None) -> Served:
        uid = os.getuid() if owner_uid is None else owner_uid
        started.append(Served(path or tmp_path / "c.sock", uid, LOOPS[request.param]()))
        return started[-1]

    yield start
    for served in started:
        served.end()


def test_a_question_is_answered_with_the_peers_credentials_known(serve: Serve) -> None:
    served = serve()
    answer = ask(served.path, {"verb": "status", "more": 1}, 5.0)
    assert answer["ok"] is True
    assert answer["phase"] == "lending"
    assert served.seen == [({"v": 1, "verb": "status", "more": 1}, Peer(os.getuid(), os.getpid()))]


def test_one_connection_may_ask_again(serve: Serve) -> None:
    with serve().connect() as connection, connection.makefile("rb") as answers:
        for _ in range(3):
            connection.sendall(b'{"v":1,"verb":"status"}\n')
            assert json.loads(answers.readline())["ok"] is True


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\n", "malformed"),
        (b"not json\n", "malformed"),
        (b"\xff\xfe\x00\n", "malformed"),
        pytest.param(b"[" * 60_000 + b"\n", "malformed", id="deep"),
        (b"[]\n", "malformed"),
        (b"null\n", "malformed"),
        (b'{"verb":"status"}\n', "malformed"),
        (b'{"v":2,"verb":"status"}\n', "malformed"),
        (b'{"v":1}\n', "unknown_verb"),
        (b'{"v":1,"verb":"explode"}\n', "unknown_verb"),
        (b'{"v":1,"verb":["status"]}\n', "unknown_verb"),
        (b'{"v":1,"verb":"broken"}\n', "failed"),
        (b'{"v":1,"verb":"unspeakable"}\n', "failed"),
        pytest.param(b"x" * 100_000 + b"\n", "too_long", id="long"),
        pytest.param(b"x" * 300_000, "too_long", id="endless"),
    ],
)
def test_bad_input_gets_an_error_object_and_nobody_else_notices(
    serve: Serve, sent: bytes, code: str
) -> None:
    served = serve()
    answer = served.say(sent)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert "secret" not in answer["error"]["message"]
    assert served.ask("status")["ok"] is True


def test_a_long_answer_arrives_whole_at_a_slow_reader_that_asks_no_more(serve: Serve) -> None:
    with serve().connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b'{"v":1,"verb":"status","size":3000000}\n')
        slow.shutdown(socket.SHUT_WR)
        received = b""
        while part := slow.recv(50_000):
            received += part
            time.sleep(0.001)
    assert len(json.loads(received)["filler"]) == 3_000_000


def test_half_a_request_is_not_carried_out(serve: Serve) -> None:
    served = serve()
    with served.connect() as connection:
        connection.sendall(b'{"v":1,"verb":"status"')
        connection.shutdown(socket.SHUT_WR)
        assert json.loads(connection.makefile("rb").readline())["error"]["code"] == "malformed"
    assert served.seen == []


def test_only_the_owner_and_root_may_use_the_closed_verbs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(owner_uid=4711)
    served.release()
    asking = [1234]
    monkeypatch.setattr(control, "peer_of", lambda _: Peer(uid=asking[0], pid=1))
    assert served.ask("slow")["error"]["code"] == "not_permitted"
    assert served.ask("status")["ok"] is True
    for asking[0] in (0, 4711):
        assert served.ask("slow")["ok"] is True


def test_a_client_that_does_not_read_holds_up_nobody(serve: Serve) -> None:
    served = serve()
    with served.connect() as deaf:
        deaf.sendall(b'{"v":1,"verb":"status","size":1000000}\n' * 20)
        for _ in range(3):
            assert served.ask("status", 1.0)["ok"] is True


def test_a_client_that_says_nothing_or_reads_nothing_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "IDLE_S_MAX", 0.05)
    served = serve()
    with served.connect() as silent:
        assert silent.recv(1) == b""
    with served.connect() as deaf:
        deaf.sendall(b'{"v":1,"verb":"status","size":5000000}\n')
        until(lambda: served.seen, "the question is heard")
        until(lambda: not served.server._connections, "the deaf one is dropped")


def test_one_user_cannot_take_all_connections_and_gets_them_back(serve: Serve) -> None:
    served = serve()
    with contextlib.ExitStack() as opened:
        for _ in range(control.CLIENTS_PER_UID_MAX):
            opened.enter_context(served.connect())
        until(lambda: len(served.server._connections) == control.CLIENTS_PER_UID_MAX, "all in")
        for _ in range(100):  # it may answer and hang up before it was asked
            assert served.ask("status")["error"]["code"] == "too_many_clients"
    until(lambda: served.ask("status")["ok"], "room again")
    until(lambda: not served.server._clients, "nobody is counted any more")


def test_a_request_is_carried_out_though_its_sender_has_left(serve: Serve) -> None:
    served = serve()
    with pytest.raises(UnreachableError) as silent:
        served.ask("slow", 0.05)
    assert silent.value.silent
    assert served.seen == []
    served.release()
    until(lambda: served.seen, "the request is carried out")


def test_a_path_longer_than_a_socket_address_works(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    served = serve(folder / "control.sock")
    assert served.ask("status")["ok"] is True
    assert served.path.stat().st_mode & 0o777 == 0o666


def test_the_socket_of_a_dead_lenderd_is_replaced_and_its_own_removed(
    serve: Serve, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    served = serve()
    assert served.ask("status")["ok"] is True
    served.close()
    assert not served.path.exists()


def test_close_cuts_off_whoever_waits(serve: Serve) -> None:
    served = serve()
    with served.connect() as waiting:
        waiting.sendall(b'{"v":1,"verb":"slow"}\n')
        until(lambda: served.server._connections, "it waits")
        started = time.monotonic()
        served.close()
        assert waiting.recv(1) == b""
        assert time.monotonic() - started < 5
    assert served.seen == []


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n", b'{"ok": 1}\n', b'{"ok": true'])
def test_a_server_that_talks_something_else_is_told_apart(tmp_path: Path, answer: bytes) -> None:
    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c.sock"))
        listener.listen()
        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(UnreachableError) as strange:
            ask(tmp_path / "c.sock", {"verb": "status"}, 2.0)
        thread.join()
    assert strange.value.silent


def test_nobody_there_and_nobody_answering_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as absent:
        ask(tmp_path / "none.sock", {"verb": "status"}, 1.0)
    assert not absent.value.silent
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        deaf.listen(0)
        for _ in range(3):  # the last ones find the backlog full
            with pytest.raises(UnreachableError) as silent:
                ask(tmp_path / "deaf.sock", {"verb": "status"}, 0.05)
            assert silent.value.silent

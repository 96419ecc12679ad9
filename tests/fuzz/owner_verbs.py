"""The control socket, both ends; settings; and what names a place on the network or on disk."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic_settings import BaseSettings

from broker.service.settings import BrokerSettings
from fuzz.link import at_once
from fuzz.target import Target, taken
from lender.cli import state_choice
from lender.daemon import control_client
from lender.daemon.agent_reports import AgentReports, ReportError
from lender.daemon.control import ControlServer, MalformedError
from lender.daemon.owner import _intent
from lender.daemon.peer import Peer
from lender.daemon.settings import DaemonSettings
from lender.service.settings import SettingsError, load

_STRANGER = Peer(4711, 1)


def _line(data: bytes) -> None:
    """What anyone local may send; the handlers are those that look into a request."""
    agents = AgentReports()

    def presence(request: dict[str, object], peer: Peer) -> dict[str, object]:
        try:
            agents.told(request, peer.uid, 1.0)
        except ReportError as error:
            raise MalformedError(str(error)) from error
        return {}

    def pause(request: dict[str, object], _peer: Peer) -> dict[str, object]:
        if "intent" in request:
            _intent(request["intent"])
        return {}

    handlers = {"presence": presence, "pause": pause, "resume": pause}
    server = ControlServer(Path("unused"), handlers, owner_uid=1000)
    line = data.partition(b"\n")[0] + b"\n"
    reply = control_client.reply_of(at_once(server._answer(line, _STRANGER)))
    assert reply["ok"] or reply["error"]["code"] != "failed", reply
    assert not reply["ok"] or json.loads(line)["verb"] in ("presence", "pause")


def _reply(data: bytes) -> None:
    """What whoever holds a control socket answers."""
    reply = taken(control_client.UnreachableError, control_client.reply_of, data)
    assert reply is None or isinstance(reply["ok"], bool)


def _settings(model: type[BaseSettings]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        handle, name = tempfile.mkstemp(suffix=".toml")
        try:
            os.write(handle, data)
            found = taken(SettingsError, load, model, Path(name), {}, {})
            if isinstance(found, DaemonSettings):
                found.policy.policy(4.0, reserve_memory_bytes=1 << 30, yield_cpu_others=None)
                assert found.hosts is not None
        finally:
            os.close(handle)
            Path(name).unlink()

    return run


def _state_named(data: bytes) -> None:
    """The verbs look for the state folder in lenderd.toml, whether lenderd takes it or not."""
    kept = {name: os.environ.pop(name, None) for name in ("XDG_CONFIG_HOME", "LENDERD_STATE")}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lender").mkdir()
        (Path(folder) / "lender" / "lenderd.toml").write_bytes(data)
        os.environ["XDG_CONFIG_HOME"] = folder
        try:
            found = state_choice.configured_state_path()
            assert found is None or isinstance(found, str)
        finally:
            del os.environ["XDG_CONFIG_HOME"]
            os.environ.update({name: old for name, old in kept.items() if old is not None})


TARGETS = (
    Target(
        "owner-request",
        _line,
        (
            b'{"v": 1, "verb": "presence", "idle_s": 12.5, "locked": true, "source": "x11"}\n',
            b'{"v": 1, "verb": "pause", "intent": {"paused_at": 1.7e9, "until": 1.8e9}}\n',
            b'{"v": 1, "verb": "resume"}\n',
        ),
        ("lender.daemon.control.ControlServer._answer",),
        (b'"inhibited_by":', b'"game":', b'"finish_by":', b"Infinity", b"null", b"1e999"),
    ),
    Target(
        "owner-reply",
        _reply,
        (b'{"ok": true, "report": {"verified": true}}\n', b'{"ok": false, "error": {}}\n'),
        ("lender.daemon.control_client.reply_of",),
    ),
    Target(
        "settings-lenderd",
        _settings(DaemonSettings),
        (
            (
                b'url = "nats://a.example.org"\npools = ["site-1"]\nlabels = ["ssd"]\nslots = 3\n'
                b'budget = ["10cpuh/day"]\n[policy]\ndefaults = "dedicated"\nhistory_days = 3\n'
            ),
            (
                b"[policy.in_use]\ncores = 2\ncpu_others = { reduced = 2, frozen = 4 }\n"
                b"temperature_c = { reduced = -20, frozen = { at = -10, back = -15 } }\n"
                b"stay_s = 8\n"
                b'[policy.away]\non_battery = "frozen"\nhours = "Mon-Fri 18:00-08:00, Sat-Sun"\n'
                b"game = false\nmemory_kept_bytes = false\nbattery_enough = 0.5\n"
                b"[policy.presence]\nidle_after_s = 60\n"
            ),
        ),
        ("lender.service.settings._read",),
        (
            b"nan",
            b"inf",
            b"-0.0",
            b"false",
            b"[[",
            b"reserve_memory_bytes = ",
            b"{ at = ",
            b"9" * 40,
        ),
    ),
    Target(
        "settings-broker",
        _settings(BrokerSettings),
        (b'port = 4222\nembedded = true\nreplicas = 3\njobs_bytes = 10485760\npools = ["a"]\n',),
        ("lender.service.settings._read",),
        (b"[submitters]\nalice = ", b"nan", b"[["),
    ),
    Target(
        "settings-state",
        _state_named,
        (b'state = "/var/lib/lender"\nslots = 1\n',),
        ("lender.cli.state_choice.configured_state_path",),
        (b"[[", b"{"),
    ),
)

"""`lender preflight`: what a machine finds out before it joins, and that it leaves no trace."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lying_server import INFO, TLS_INFO, Behaviour, endless, lying, says
from nats.aio.msg import Msg
from owner_machine import ALICE, Machine, grant, machine
from vouching_server import VouchingServer

from broker.core.leadership import KeyRead, KeyStored
from broker.deployment import certificates, claims
from broker.deployment.contents import Certificates
from broker.deployment.tokens import Key
from broker.service.leader_key import LeaderKey
from lender.cli import checks
from lender.cli.checks import standing
from lender.daemon.identity import load_or_create
from lender.link.api import JetStream
from lender.link.connection import Connection, connect
from lender.link.embedded import EmbeddedServer
from lender.link.server_words import Server, Standing, User
from lender.protocol import streams, subjects
from lender.protocol.classes import WorkClass
from lender.protocol.permissions import USER_INFO, Role, Verb
from lender.protocol.version import PROTOCOL
from lender.state.grant_writing import write_grant

__all__ = ["machine"]

DAY_S = 86_400.0


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[VouchingServer]:
    (tmp_path / "fleet").mkdir()
    server = VouchingServer(tmp_path / "fleet")
    await server.start()
    yield server
    server.kill()


class Seen:
    """What a preflight has said."""

    def __init__(self, code: int, told: dict[str, Any]) -> None:
        self.code = code
        self.told = told
        self.by_name = {check["name"]: check for check in told["checks"]}

    def level(self, name: str) -> str:
        return str(self.by_name[name]["level"])

    def text(self, name: str) -> str:
        return str(self.by_name[name]["text"])

    def blockers(self) -> set[str]:
        return {name for name, one in self.by_name.items() if one["level"] == "blocker"}


def preflight(machine: Machine, *arguments: str) -> Seen:
    code, told = machine.json("preflight", *arguments)
    assert told["schema"] == "lender.preflight/1"
    levels = [check["level"] for check in told["checks"]]
    assert (told["blockers"], told["warnings"]) == (
        levels.count("blocker"),
        levels.count("warning"),
    )
    assert code == (1 if told["blockers"] else 0)
    for check in told["checks"]:
        assert check["mend"] or check["level"] in ("ok", "info"), check
    return Seen(code, told)


def ca(fleet: VouchingServer) -> tuple[str, str]:
    return ("--ca", str(fleet.ca))


def test_a_stranger_learns_that_enrolment_comes_next(
    machine: Machine, fleet: VouchingServer
) -> None:
    machine.tested_daemon()
    seen = preflight(machine, fleet.url, *ca(fleet))
    assert seen.blockers() == set()
    assert seen.level("tls") == "ok"
    assert "ends in 3650 days" in seen.text("tls.expiry")
    assert seen.level("login") == "info"
    assert seen.by_name["login"]["mend"] == f"lender enroll {fleet.url}"
    assert {"server.reach", "server.version", "pins.ca", "runtime.process"} <= seen.by_name.keys()
    shown = machine.lender("preflight", fleet.url, *ca(fleet))
    assert shown.returncode == 0
    last = shown.stdout.splitlines()[-1]
    assert last.endswith(f"blockers 0, warnings {seen.told['warnings']}")


@pytest.mark.parametrize("role", ["lender", "submitter", "observer"])
def test_each_role_is_let_do_what_the_table_says(
    machine: Machine, fleet: VouchingServer, role: Role
) -> None:
    machine.tested_daemon()
    path = fleet.let_in(role, role, "class:default_wasm_any_none_x_y")
    seen = preflight(machine, fleet.url, *ca(fleet), "--creds", str(path))
    assert seen.blockers() == set(), seen.told
    assert f"what a {role} may, and nothing else" in seen.text("permissions")
    assert seen.level("clock.server") == "ok"
    another = "observer" if role == "lender" else "lender"
    seen = preflight(machine, fleet.url, *ca(fleet), "--creds", str(path), "--role", another)
    assert "permissions.missing" in seen.blockers()


async def test_rights_that_are_not_those_of_the_table_are_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.tested_daemon()
    usual = claims.permissions.templates

    def other(role: Role, verb: Verb) -> tuple[str, ...]:
        if (role, verb) == ("lender", "publish"):
            return (*(one for one in usual(role, verb) if "HEADS" not in one), "work.>")
        return usual(role, verb)

    with monkeypatch.context() as patched:
        patched.setattr(claims.permissions, "templates", other)
        server = VouchingServer(tmp_path)
    try:
        await server.start()
        path = server.let_in("lender", "desk")
        seen = preflight(machine, server.url, *ca(server), "--creds", str(path))
    finally:
        server.kill()
    assert seen.blockers() == {"permissions.missing"}
    assert "HEADS" in seen.text("permissions.missing")
    assert "publish work.>" in seen.text("permissions.beyond")


async def test_accounts_of_an_older_table_are_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They let nobody ask."""
    machine.tested_daemon()
    usual = claims.permissions.templates

    def older(role: Role, verb: Verb) -> tuple[str, ...]:
        return tuple(one for one in usual(role, verb) if one != USER_INFO)

    with monkeypatch.context() as patched:
        patched.setattr(claims.permissions, "templates", older)
        server = VouchingServer(tmp_path)
    try:
        await server.start()
        path = server.let_in("lender", "desk")
        seen = preflight(machine, server.url, *ca(server), "--creds", str(path))
    finally:
        server.kill()
    assert (seen.blockers(), seen.level("permissions")) == (set(), "warning")
    assert "lender-broker rotate" in seen.by_name["permissions"]["mend"]


def test_pins_are_held_against_what_is_met(machine: Machine, fleet: VouchingServer) -> None:
    machine.tested_daemon()
    mine = load_or_create(machine.state.identity)
    key = Key(machine.state.identity.read_bytes())
    grant(machine.state, "G-1")
    grant(machine.state, "G-2", workload="other")
    classes = WorkClass("default", "process", "any", "none", ALICE, "render").token
    path = fleet.let_in("lender", "desk", f"class:{classes}", key=key)
    told = machine.json("preflight", fleet.url, *ca(fleet), "--creds", str(path))[1]["checks"]
    granted = {check["text"]: check["level"] for check in told if check["name"] == "pins.grant"}
    assert sorted(granted.values()) == ["ok", "warning"]
    assert any("other of alice" in text for text, level in granted.items() if level == "warning")
    assert any(mine.public_key in check["text"] for check in told if check["name"] == "pins.key")

    other = fleet.let_in("lender", "attic")
    seen = preflight(machine, fleet.url, *ca(fleet), "--creds", str(other))
    assert seen.blockers() == {"pins.key"}
    stolen = fleet.folder / "stolen.creds"
    token, seed = (
        path.read_text().split("-----BEGIN USER"),
        other.read_text().split("-----BEGIN USER"),
    )
    stolen.touch(mode=0o600)
    stolen.write_text(f"{token[0]}-----BEGIN USER{seed[1]}")
    seen = preflight(machine, fleet.url, *ca(fleet), "--creds", str(stolen))
    assert {"login", "pins.token"} <= seen.blockers()


def test_a_key_without_a_token_is_told_from_a_server_that_says_nothing(
    machine: Machine, fleet: VouchingServer, tmp_path: Path
) -> None:
    machine.tested_daemon()
    path = tmp_path / "alice.nk"
    path.touch(mode=0o600)
    path.write_bytes(Key.make("user", bytes([3] * 32)).seed)
    seen = preflight(machine, fleet.url, *ca(fleet), "--creds", str(path), "--role", "submitter")
    assert seen.blockers() == {"login"}
    assert "without a token" in seen.text("login")
    assert f"lender enroll {fleet.url}" in seen.by_name["login"]["mend"]
    assert "permissions" not in seen.by_name


def test_pins_of_programs_and_of_lenders_are_told(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need no server."""
    status = {"runtimes": {"process": {"available": True}}, "workloads": {"render": "ab" * 32}}
    machine.daemon(status=status)
    agreed = grant(machine.state, "G-1")
    for name, digest in (("G-2", "ab" * 32), ("G-3", "cd" * 32)):
        write_grant(machine.state, replace(agreed, id=name, digest=digest), "shown", "alice")
    trust = tmp_path / "trusted"
    monkeypatch.setenv("LENDER_TRUST", str(trust))
    nowhere = "nats://127.0.0.1:1"
    seen = preflight(machine, nowhere)
    assert seen.blockers() == {"server.reach", "pins.trust"}
    pinned = [one for one in seen.told["checks"] if one["name"] == "pins.program"]
    assert [(one["level"], one["text"].split()[1]) for one in pinned] == [
        ("ok", "G-2"),
        ("warning", "G-3"),
    ]
    for text, level in (
        (f"# mine\n{ALICE} desk\n", "ok"),
        ("\n", "warning"),
        (f"{ALICE}\nUWRONG\n", "blocker"),
    ):
        trust.write_text(text)
        assert preflight(machine, nowhere).level("pins.trust") == level


def test_the_pins_of_an_overlay_are_held_against_what_is_installed(
    machine: Machine, tmp_path: Path
) -> None:
    """With a copy of the package that says which revision it is, as Nix and pip leave it."""
    machine.daemon(status={"revision": "0f" * 20})
    site, overlay = tmp_path / "site", tmp_path / "overlay"
    shutil.copytree(Path(checks.__file__).parents[2], site / "lender", symlinks=True)
    (site / "lender-0.1.0.dist-info").mkdir()
    about = {"url": "file:///x", "vcs_info": {"vcs": "git", "commit_id": "0f" * 20}}
    (site / "lender-0.1.0.dist-info/direct_url.json").write_text(json.dumps(about))
    (site / "lender-0.1.0.dist-info/METADATA").write_text("Name: lender\nVersion: 0.1.0\n")
    overlay.mkdir()
    arguments = ("preflight", "--overlay", str(overlay), "--pins-only", "--json")
    for pinned, blockers in (("0f" * 20, set()), ("ab" * 20, {"installed", "running"})):
        node = {"locked": {"rev": pinned}, "original": {"rev": pinned}}
        nodes = {"lender": node, "root": {"inputs": {"lender": "lender"}}}
        (overlay / "flake.lock").write_text(
            json.dumps({"nodes": nodes, "root": "root", "version": 7})
        )
        done = subprocess.run(
            [sys.executable, "-c", "from lender.cli.main import command; command()", *arguments],
            cwd=site,
            env={**os.environ, "LENDER_STATE": str(machine.state.path)},
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        told = json.loads(done.stdout)["checks"]
        found = {one["name"] for one in told if one["level"] == "blocker"}
        assert found == {f"overlay.{name}" for name in blockers}, done.stdout
        assert done.returncode == (1 if blockers else 0)
        assert not any(one["name"].startswith(("server", "runtime", "cgroup")) for one in told)
    unknown = preflight(machine, "--overlay", str(overlay), "--pins-only")
    assert "overlay.installed" in unknown.blockers()  # this very package is a working copy
    assert "lender_core" in preflight(
        machine, "--overlay", str(overlay), "--overlay-input", "lender_core", "--pins-only"
    ).text("overlay.lock")


async def test_a_broker_that_speaks_otherwise_is_told(
    machine: Machine, fleet: VouchingServer
) -> None:
    """It has left word on the server, and is not asked."""
    machine.tested_daemon()
    path = fleet.let_in("lender", "desk", "class:*")

    def look() -> Seen:
        return preflight(machine, fleet.url, *ca(fleet), "--creds", str(path))

    seen = look()
    assert (seen.blockers(), seen.level("broker")) == (set(), "warning")
    async with await fleet.broker() as line:
        key = LeaderKey(line, "me", 1)
        assert await key.read() == KeyRead(0, None)
        stored = await key.write(0)
        assert isinstance(stored, KeyStored)
        seen = look()
        assert (seen.blockers(), seen.level("broker.protocol")) == (set(), "ok")
        for word, level, says in (
            ({"broker": "me", "protocol": PROTOCOL + 1, "version": "9.9"}, "blocker", "lender 9.9"),
            ({"broker": "me"}, "warning", "earlier version"),
        ):
            await line.request(subjects.LEADERSHIP_KEY, json.dumps(word).encode())
            seen = look()
            assert (seen.level("broker.protocol"), says in seen.text("broker.protocol")) == (
                level,
                True,
            )
        await line.request(subjects.LEADERSHIP_KEY, b'{"broker": null}')
        assert look().level("broker") == "warning"
        await line.request(subjects.LEADERSHIP_KEY, b'{"broker": 7, "version": "\x1b[2J"}')
        seen = look()
        assert (seen.blockers(), seen.level("broker")) == (set(), "warning")
        assert "\x1b" not in seen.text("broker")


def test_a_server_that_nobody_vouches_for_is_told_nothing(
    machine: Machine, fleet: VouchingServer, tmp_path: Path
) -> None:
    machine.tested_daemon()
    other = tmp_path / "other.pem"
    other.write_text(certificates.make("other", ["127.0.0.1"], time.time()).authority)
    path = fleet.let_in("lender", "desk")
    before = fleet.log()
    seen = preflight(machine, fleet.url, "--ca", str(other), "--creds", str(path))
    assert seen.blockers() == {"tls"}
    assert "nobody in" in seen.text("tls")
    assert "ca.pem" in seen.by_name["tls"]["mend"]
    assert "login" not in seen.by_name
    assert "desk" not in fleet.log().removeprefix(before)
    seen = preflight(machine, fleet.url, "--creds", str(path))
    assert "nobody whom this machine trusts" in seen.text("tls")


@pytest.mark.parametrize(
    ("hosts", "age_s", "name", "level", "says"),
    [
        (("127.0.0.1",), 3640 * DAY_S, "tls.expiry", "warning", "in 10 days"),
        (("127.0.0.1",), 3660 * DAY_S, "tls", "blocker", "has ended"),
        (("127.0.0.1",), -9 * DAY_S, "tls", "blocker", "not yet"),
        (("nats.lab",), 0.0, "tls", "blocker", "not for the name 127.0.0.1"),
    ],
)
async def test_a_certificate_that_ends_or_is_anothers_is_told(
    machine: Machine,
    tmp_path: Path,
    hosts: tuple[str, ...],
    age_s: float,
    name: str,
    level: str,
    says: str,
) -> None:
    machine.tested_daemon()
    made = certificates.make("trial", hosts, time.time() - age_s)
    async with tls_server(tmp_path, made) as server:
        seen = preflight(machine, server.url, "--ca", str(tmp_path / "ca.pem"))
    assert (seen.level(name), says in seen.text(name)) == (level, True), seen.told


def tls_server(folder: Path, made: Certificates) -> EmbeddedServer:
    """One with a certificate, that asks nobody who they are."""
    (folder / "ca.pem").write_text(made.authority)
    (folder / "s.pem").write_text(made.server)
    (folder / "s.key").write_text(made.server_key)
    config = f'tls {{ cert_file: "{folder}/s.pem", key_file: "{folder}/s.key" }}'
    return EmbeddedServer(folder / "nats", extra_config=config)


async def test_a_server_that_asks_nobody_is_fine_on_ones_own_machine(
    machine: Machine, nats: EmbeddedServer
) -> None:
    machine.tested_daemon()
    seen = preflight(machine, nats.url)
    assert (seen.blockers(), seen.level("permissions")) == (set(), "info")
    assert seen.level("clock.server") == "ok"
    many = preflight(machine, f"{nats.url},nats://127.0.0.1:1")
    assert (many.code, many.level("server.reach")) == (0, "warning")


def test_who_is_not_there_blocks(machine: Machine) -> None:
    machine.tested_daemon()
    seen = preflight(machine, "nats://127.0.0.1:1")
    assert seen.blockers() == {"server.reach"}
    assert "no NATS server at 127.0.0.1:1" in seen.text("server.reach")
    assert preflight(machine, "nats://nats.invalid").blockers() == {"server.name"}
    done = machine.lender("preflight", "http://user:secret@nats.lab")
    assert (done.returncode, "no address" in done.stderr) == (2, True)
    assert "secret" not in done.stderr
    done = machine.lender("preflight", "--creds", "/none")
    assert (done.returncode, "can't read" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("behave", "blocker"),
    [
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "server"),
        (says(b"INFO " + b"[" * 60_000 + b"\r\n"), "server"),
        (endless(b"INFO ", b"x" * 65_536), "server"),
        (says(), "server"),
        (says(TLS_INFO), "tls"),
        (
            says(INFO.replace(b"2.15.1", b"2.9.0"), b"-ERR 'Authorization Violation'\r\n"),
            "server.version",
        ),
        (says(INFO.replace(b"2.15.1", b"\x1b]0;owned\x07"), b"-ERR 'x'\r\n"), "server"),
        (says(INFO.replace(b"2.15.1", b"x.y\\u001b[2J"), b"-ERR 'x'\r\n"), "server.version"),
        (endless(INFO, b"+OK\r\n" * 1000), "login"),
        (
            says(INFO, b"PONG\r\nMSG _INBOX.x 1 7\r\n", b"x" * 100_000),
            "permissions",
        ),
    ],
    ids=[
        "ssh",
        "tower",
        "endless",
        "silent",
        "handshake",
        "old",
        "bytes",
        "escape",
        "words",
        "lie",
    ],
)
def test_a_server_that_lies_is_a_blocker_in_bounded_time(
    machine: Machine, behave: Behaviour, blocker: str
) -> None:
    machine.tested_daemon()
    with lying(behave) as place:
        began = time.monotonic()
        seen = preflight(machine, f"nats://{place}")
        assert time.monotonic() - began < 30
    assert seen.blockers() == {blocker}
    assert "\x1b" not in "".join(seen.text(name) for name in seen.by_name)


def test_a_clock_that_differs_from_the_servers_is_told() -> None:
    for ahead_s, level, words in (
        (0.4, "ok", "agree"),
        (7.0, "warning", "6 s ahead of"),
        (-7.0, "warning", "6 s behind"),
        (400.0, "blocker", "6 min ahead of"),
    ):
        then = datetime.fromtimestamp(1_790_000_000.0, UTC)
        said = Standing(server=Server(time=then), data=User())
        now = 1_790_000_000.0 + ahead_s
        (found,) = standing.skew(said, now - 0.25, now + 0.25)
        assert (found.level, words in found.text) == (level, True), found
        assert found.mend or found.level == "ok"


def listing(*folders: Path) -> list[tuple[str, int, int]]:
    return [
        (str(path), path.lstat().st_mtime_ns, path.lstat().st_size)
        for folder in folders
        for path in sorted([folder, *folder.rglob("*")])
        if "nats" not in path.parts
    ]


async def test_it_leaves_no_trace(
    machine: Machine, fleet: VouchingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on this machine, nor in the server's streams, nor with the broker."""
    machine.tested_daemon()
    grant(machine.state, "G-1")
    path = fleet.let_in("lender", "desk", "class:*")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    heard: list[str] = []

    async def hear(msg: Msg) -> None:
        heard.append(msg.subject)

    system = fleet.deployment.system_credentials
    async with (
        await fleet.broker() as broker,
        await connect(fleet.url, name="system", credentials=system, ca=fleet.ca) as overseer,
    ):
        for config in streams.stream_configs():
            await JetStream(broker).ensure_stream(config)
        for subject in (subjects.OFFER_FILTER, subjects.DONE_FILTER, subjects.QUERY_FILTER):
            await broker.nc.subscribe(subject, cb=hear)
        await broker.nc.flush()
        before = listing(machine.state.path, home), await stored(overseer)
        for role in ("lender", "submitter"):
            arguments = ("preflight", fleet.url, *ca(fleet), "--creds", str(path), "--role", role)
            done = machine.lender(*arguments, cwd=home)
            assert "blockers" in done.stdout, done.stderr
        await broker.nc.flush()
        assert (listing(machine.state.path, home), await stored(overseer)) == before
        assert heard == []


async def stored(overseer: Connection) -> dict[str, int]:
    """What the server keeps, of all streams together."""
    said = json.loads((await overseer.request("$SYS.REQ.SERVER.PING.JSZ")).data)["data"]
    return {name: said[name] for name in ("streams", "consumers", "messages", "bytes")}


def test_a_stranger_to_the_machine_may_look_too(machine: Machine) -> None:
    """Whoever wants to submit from a machine that another lends."""
    machine.tested_daemon()
    done = machine.lender_as_stranger("preflight", "nats://127.0.0.1:1", "--role", "submitter")
    assert "blockers 1" in done.stdout, done.stderr

"""The owner's house beside the owner's verbs: what Home Assistant renders, and what follows."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2.sandbox
import pytest
from core_world import ALICE, Bench, make_grant

from lender.cli.checks.daemon import home as check_home
from lender.cli.main import main
from lender.cli.owner import Told
from lender.cli.reading import Reading
from lender.cli.status_lines import lines
from lender.core.consent import Intent
from lender.core.home_commands import (
    CommandCame,
    CommandKey,
    HomeCommands,
    Refuse,
    Weigh,
    decode_command,
)
from lender.core.signals import OutsideReading
from lender.daemon import home as home_module
from lender.daemon.clock import Clock
from lender.daemon.home import Home
from lender.daemon.home_assistant import Topics, discovery, macro, macro_file, state_of
from lender.daemon.home_settings import MqttSettings, node_name
from lender.daemon.owner import OwnerVerbs
from lender.daemon.peer import Peer
from lender.daemon.settings import DaemonSettings
from lender.protocol.house_rights import house_topics, nats_subject
from lender.service.settings import SettingsError, load
from lender.state import withdrawal
from lender.state.consent_files import load_consent, read_intent, write_intent
from lender.state.folder import StateFolder
from lender.state.grant_file import encode_grant
from lender.state.home_key import make_home_key, read_home_key

KEY = CommandKey("1f" * 32, "a0" * 32)
URL = "mqtt://house.lan"


# What Home Assistant makes of it.


def home_assistant(node: str = "desk") -> jinja2.Environment:
    """Its templates, as far as ours use them: a sandbox, `sha256`, `now`, our file."""
    files = {macro_file(node): macro(node, KEY)}
    found = jinja2.sandbox.ImmutableSandboxedEnvironment(loader=jinja2.DictLoader(files))
    found.globals["sha256"] = lambda text: sha256(text.encode()).hexdigest()
    found.globals["now"] = lambda: datetime.now().astimezone()
    return found


def render(template: str, **values: object) -> bytes:
    return home_assistant().from_string(template).render(**values).strip().encode()


def followed(payload: bytes, node: str = "desk") -> object:
    commands = HomeCommands(node, time.time() - 60)
    return commands.handle(time.time(), CommandCame(payload, retained=False, key=KEY))[0]


ABOUT = discovery("desk", "Anna's desk", "1.0", Topics.of("desk", "homeassistant"))


@pytest.mark.parametrize(
    ("entity", "value", "word"),
    [
        ("lending", ABOUT["components"]["lending"]["payload_on"], "resume"),
        ("lending", ABOUT["components"]["lending"]["payload_off"], "pause"),
        ("mode", "lending", "resume"),
        ("mode", "draining", "drain"),
        ("mode", "paused", "pause"),
        ("pause_hour", ABOUT["components"]["pause_hour"]["payload_press"], "pause-1h"),
        ("revoke", ABOUT["components"]["revoke"]["payload_press"], "revoke"),
    ],
)
def test_what_home_assistant_sends_is_the_owners_word(entity: str, value: str, word: str) -> None:
    payload = render(ABOUT["components"][entity]["command_template"], value=value)
    assert followed(payload) == Weigh(word)
    assert isinstance(followed(payload, "attic"), Refuse)


@pytest.mark.parametrize(
    "stolen",
    [
        "{{ m }}",
        "{{ m.say }}",
        "{{ m.__dict__ }}",
        "{{ m.say.__init__ }}",
        "{{ m.say._func }}",
        "{% include 'lender_desk.jinja' %}",
    ],
)
def test_a_template_that_is_not_the_owners_has_no_key_of_it(stolen: str) -> None:
    try:
        said = render("{% import 'lender_desk.jinja' as m %}" + stolen).decode()
    except jinja2.exceptions.SecurityError:
        said = ""
    assert KEY.inner not in said
    assert KEY.outer not in said


@pytest.mark.parametrize("word", ["resume 1999999999.0", "resume\n", "", "x" * 300, "grant"])
def test_the_macro_signs_nothing_for_later_and_nothing_else(word: str) -> None:
    payload = render("{% from 'lender_desk.jinja' import say %}{{ say(w) }}", w=word)
    assert isinstance(followed(payload), Refuse)


def test_the_macro_tells_the_time_itself() -> None:
    payload = render("{% from 'lender_desk.jinja' import say %}{{ say('pause') }}")
    assert abs(float(decode_command(payload).at) - time.time()) < 30


def test_the_discovery_message_has_what_home_assistant_asks_for_and_no_key() -> None:
    text = json.dumps(ABOUT)
    assert KEY.inner not in text
    assert ABOUT["device"]["identifiers"] == ["lender_desk"]
    assert ABOUT["origin"]["name"] == "lender"
    components = ABOUT["components"]
    assert len({one["unique_id"] for one in components.values()}) == len(components)
    assert all(one["platform"] for one in components.values())
    assert components["mode"]["options"] == ["lending", "draining", "paused"]
    phase = components["phase"]
    assert (phase["device_class"], "unit_of_measurement" in phase) == ("enum", False)
    # What is signed is never kept by the server.
    assert not any(one.get("retain") for one in components.values())


def test_the_topics_are_those_of_the_table_of_rights() -> None:
    topics = Topics.of("desk", "homeassistant")
    published = {topics.state, topics.available, topics.discovery}
    assert {*house_topics("publish", "desk", ["energy/price"])} == published
    heard = (topics.commands, "energy/price")
    assert house_topics("subscribe", "desk", ["energy/price"]) == heard
    assert [nats_subject(one) for one in heard] == ["lender.desk.set", "energy.price"]


def test_the_state_says_only_what_home_assistant_shows() -> None:
    world = Bench().ready()
    state = state_of(world.lender.status(world.now), world.now)
    shown = {
        one["value_template"].removeprefix("{{ value_json.").removesuffix(" }}")
        for one in ABOUT["components"].values()
        if "value_template" in one
    }
    assert set(state) == shown
    assert (state["lending"], state["mode"], state["phase"]) == ("on", "lending", "lending")
    assert all(isinstance(state[name], int) for name in ("slots_free", "cores_free"))


@pytest.mark.parametrize(
    "name", ["x'}}{{ states }}", "../../etc", "a/b", "lender/#", "+", "", "Ä", "A" * 99, "a.b", "-"]
)
def test_no_name_of_a_machine_means_anything_in_topics_and_templates(name: str) -> None:
    node = node_name(name)
    assert MqttSettings(url=URL, node=node).node == node
    about = discovery(node, name, "1", Topics.of(node, "homeassistant"))
    template = about["components"]["revoke"]["command_template"]
    payload = home_assistant(node).from_string(template).render(value="revoke").encode()
    assert followed(payload, node) == Weigh("revoke")


# Settings.


@pytest.mark.parametrize(
    "table",
    [
        {"url": "http://house.lan"},
        {"url": "mqtt://"},
        {"url": "mqtt://me:secret@house.lan"},
        {"url": "mqtt://house.lan/topic"},
        {"url": "mqtt://house.lan:99999"},
        {"url": URL, "node": "desk/../attic"},
        {"url": URL, "node": "x'}}"},
        {"url": URL, "node": ""},
        {"url": URL, "discovery_prefix": "#"},
        {"url": URL, "nodes": "desk"},
        {"url": URL, "signals": [{"topic": "a", "kind": "price", "below": 1}]},
        {"url": URL, "signals": [{"topic": "a", "kind": "price", "expires_s": 9}]},
        {"url": URL, "signals": [{"topic": "a/#", "kind": "p", "below": 1, "expires_s": 9}]},
        {"url": URL, "signals": [{"topic": "$SYS", "kind": "p", "below": 1, "expires_s": 9}]},
        {"url": URL, "signals": [{"topic": "a", "kind": "p", "below": "x", "expires_s": 9}]},
        {
            "url": URL,
            "signals": [{"topic": t, "kind": "p", "below": 1, "expires_s": 9} for t in "ab"],
        },
        {
            "url": URL,
            "signals": [{"topic": "a", "kind": k, "below": 1, "expires_s": 9} for k in "pq"],
        },
    ],
)
def test_settings_that_mean_nothing_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        load(DaemonSettings, None, {"mqtt": table}, {})
    assert "secret@" not in str(refused.value)


def test_settings_become_places_conditions_and_sources(tmp_path: Path) -> None:
    path = tmp_path / "lenderd.toml"
    path.write_text(
        """
name = "Anna's Desk"
[mqtt]
url = "mqtts://[::1]"
[[mqtt.signals]]
topic = "solar/power"
kind = "surplus"
above = { at = 500, back = 800 }
expires_s = 300
[[mqtt.signals]]
topic = "office"
kind = "presence"
key = "occupancy"
equals = "false"
expires_s = 3600
"""
    )
    settings = load(DaemonSettings, path, {}, {})
    assert settings.mqtt is not None
    assert str(settings.mqtt.place) == "mqtts://[::1]:8883"
    assert settings.mqtt.node_of(settings.name) == "anna-s-desk"
    surplus, office = settings.mqtt.conditions()
    assert (surplus.name, surplus.above and surplus.above.back) == ("power surplus", 800)
    assert (office.name, office.equals) == ("presence at home", ("false",))
    assert [one.source().numeric for one in settings.mqtt.signals] == [True, False]


def test_policy_show_says_under_which_conditions_anything_is_lent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lenderd.toml"
    path.write_text(
        """
[mqtt]
url = "mqtt://house.lan"
signals = [
  { topic = "a", kind = "price", below = 0.3, expires_s = 60 },
  { topic = "b", kind = "surplus", above = { at = 500, back = 800 }, expires_s = 60 },
  { topic = "c", kind = "presence", equals = ["away", "out"], expires_s = 60 },
]
"""
    )
    assert main(["policy", "show", "--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert "Lends only while power price is 0.3 at most." in said
    assert "Lends only while power surplus is 500 / 800 at least." in said
    assert "Lends only while presence at home is away or out." in said
    assert main(["policy", "show", "--json", "--config", str(path)]) == 0
    away = json.loads(capsys.readouterr().out)["policy"]["away"]
    assert away["conditions"][0]["name"] == "power price"


def test_without_the_table_nothing_of_it_is_loaded() -> None:
    script = (
        "import sys, lender.daemon.lifetime; "
        "sys.exit(any(m.partition('.')[0] in ('aiomqtt', 'paho') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# The key.


def test_the_key_is_kept_where_nobody_else_reads_it(state: StateFolder) -> None:
    assert read_home_key(state) is None
    key = make_home_key(state)
    assert state.home_key.stat().st_mode & 0o777 == 0o600
    assert read_home_key(state) == key != make_home_key(state)


def test_a_key_that_others_can_read_or_that_is_none_counts_as_none(state: StateFolder) -> None:
    make_home_key(state)
    state.home_key.chmod(0o644)
    assert read_home_key(state) is None
    state.home_key.chmod(0o600)
    state.home_key.write_text("1f\n")
    assert read_home_key(state) is None
    target = state.home_key.rename(state.path / "elsewhere")
    state.home_key.symlink_to(target)
    assert read_home_key(state) is None


def lender(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert main(["home", *words]) == 0
    said = capsys.readouterr()
    return said.out, said.err


def test_the_verb_makes_a_key_once_and_says_what_to_do(
    state: StateFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "lenderd.toml"
    config.write_text('name = "Attic"\n')
    words = ("--state", str(state.path), "--config", str(config))
    printed, advice = lender(capsys, *words)
    key = read_home_key(state)
    assert key is not None
    assert printed == macro("attic", key)
    assert "custom_templates/lender_attic.jinja" in advice
    assert key.inner not in advice
    again, _ = lender(capsys, *words)
    assert again == printed
    config.write_text('name = "Attic"\nmqtt = { url = "mqtt://house.lan", node = "top" }\n')
    document = json.loads(lender(capsys, *words, "--new-key", "--json")[0])
    assert (document["schema"], document["node"], document["made"]) == (
        "lender.home/1",
        "top",
        True,
    )
    assert read_home_key(state) != key


@pytest.mark.parametrize(
    ("facts", "line", "checks"),
    [
        (
            {"connected": False, "fault": "\x1b[2Jrefused", "key": True},
            "no line to mqtt://h:1: ",
            ["warning"],
        ),
        ({"connected": True, "key": True}, "connected to mqtt://h:1 as desk", ["ok"]),
        ({"connected": True, "key": False}, "follows no command: lender home", ["ok", "info"]),
        (
            {"connected": True, "key": True, "refused": "it was paused at the machine"},
            "last command not followed: it was paused",
            ["ok"],
        ),
        (
            {"connected": True, "key": True, "refused_strange": "not signed"},
            "connected to mqtt://h:1 as desk",
            ["ok", "warning"],
        ),
    ],
)
def test_status_and_doctor_tell_of_the_line(
    facts: dict[str, object], line: str, checks: list[str]
) -> None:
    fields = {"server": "mqtt://h:1", "node": "desk", **facts}
    told = Told("answered", {"home": fields})
    (said,) = [one for one in lines(Reading(told, {"home": fields})) if "mqtt://" in one]
    assert line in said
    assert "\x1b" not in said
    assert [one.level for one in check_home(told)] == checks
    assert list(check_home(Told("answered", {}))) == []


# Beside the owner's verbs.


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


class Desk:
    """A machine whose owner has granted something and has a house."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.bench = Bench().ready()
        self.clock = Clock()
        self.executions: dict[str, object] = {}
        nothing: Any = SimpleNamespace()
        shell: Any = self
        self.verbs = OwnerVerbs(
            *(state, self.bench.lender, shell, nothing, nothing, nothing, nothing, nothing),
            *({}, dict, self.clock),
        )
        signal = {"topic": "energy/price", "kind": "price", "below": 0.3, "expires_s": 60}
        settings = MqttSettings.model_validate({"url": URL, "node": "desk", "signals": [signal]})
        self.home = Home(settings, "Desk", state, self.clock, self.status)
        self.home._owner = self.verbs
        self.key = make_home_key(state)
        self.grant()
        self.verbs.load()
        self._said = 0

    def grant(self) -> None:
        now = time.time()
        grant = make_grant(id="G-aaaaaaaa", granted_at=now, not_after=now + 3600)
        path = self.state.grants / "G-aaaaaaaa.toml"
        path.write_bytes(encode_grant(grant, "shown", "alice", 0))
        path.chmod(0o600)

    def post(self, event: Any) -> None:  # noqa: ANN401
        self.bench.now = self.clock()
        self.bench.tell(event)

    def freeze_all(self) -> list[object]:
        return []

    def status(self) -> Any:  # noqa: ANN401
        return self.bench.lender.status(self.clock())

    def say(self, word: str) -> str:
        """Say it as the owner's house does; return why it is not followed."""
        self._said += 1
        at = f"{time.time() + self._said / 1000:.6f}"
        payload = f"{word} {at} {self.key.digest('desk', word, at)}".encode()
        self.home.hear("lender/desk/set", payload, False)
        facts = self.home.facts()
        assert facts["refused_strange"] == ""
        return str(facts["refused"])

    @property
    def intent(self) -> Intent:
        return read_intent(self.state)

    @property
    def phase(self) -> str:
        return str(self.status().phase)


@pytest.fixture
def desk(state: StateFolder) -> Desk:
    return Desk(state)


def test_mqtt_pauses_and_ends_its_own_pause(desk: Desk) -> None:
    assert desk.say("pause") == ""
    assert (desk.intent.by_mqtt, desk.phase) == (True, "paused")
    assert desk.say("resume") == ""
    assert (desk.intent.paused, desk.phase) == (False, "lending")


def test_a_pause_at_the_machine_over_one_by_mqtt_is_the_machines(desk: Desk) -> None:
    desk.say("pause")
    desk.verbs.pause({}, Peer(desk.state.owner_uid(), 1))
    assert "paused at the machine" in desk.say("resume")
    assert desk.phase == "paused"


def test_another_users_pause_over_one_by_mqtt_is_the_machines(desk: Desk) -> None:
    desk.say("pause")
    desk.verbs.pause({}, Peer(desk.state.owner_uid() + 1001, 1))
    assert "paused at the machine" in desk.say("resume")
    assert desk.intent.said_by == desk.state.owner_uid() + 1001


def test_a_pause_that_is_written_while_mqtt_resumes_is_the_later_word(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.say("pause")
    said_at = time.time()
    own = Intent(paused=True, paused_at=said_at)

    def written_first(state: StateFolder, intent: Intent) -> None:
        write_intent(state, own)  # `lender pause`, right before ours
        write_intent(state, intent)

    monkeypatch.setattr("lender.daemon.owner.write_intent", written_first)
    desk.say("resume")
    monkeypatch.undo()
    # And then it tells lenderd, as it always does.
    asked = {"intent": {"paused_at": said_at}}
    assert "overtaken" not in desk.verbs.pause(asked, Peer(desk.state.owner_uid(), 1))
    assert (desk.intent.paused, desk.intent.by_mqtt, desk.phase) == (True, False, "paused")


def test_a_pause_that_mqtt_pauses_over_at_the_same_moment_stays_the_machines(desk: Desk) -> None:
    said_at = time.time() - 0.001
    desk.say("pause")  # `lender pause` has written its own right before
    asked = {"intent": {"paused_at": said_at}}
    assert "overtaken" not in desk.verbs.pause(asked, Peer(desk.state.owner_uid(), 1))
    assert "paused at the machine" in desk.say("resume")


def test_a_pause_at_the_machine_that_could_not_be_saved_is_not_lifted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.say("pause")

    def full(_state: StateFolder, _intent: Intent) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lender.daemon.owner.write_intent", full)
    with pytest.raises(OSError, match="space"):
        desk.verbs.pause({}, Peer(desk.state.owner_uid(), 1))
    monkeypatch.undo()
    assert "paused at the machine" in desk.say("resume")
    assert desk.phase == "paused"


def test_a_pause_by_mqtt_that_cant_be_saved_holds_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: StateFolder, _intent: Intent) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lender.daemon.owner.write_intent", full)
    desk.say("pause")
    assert desk.phase == "paused"


async def test_revoked_by_mqtt_is_revoked_for_good(desk: Desk) -> None:
    kept = desk.state.inputs(ALICE.public_key)
    kept.mkdir(parents=True)
    faulty = desk.state.grants / "G-bbbbbbbb.toml"
    faulty.write_text("nonsense")
    desk.say("revoke")
    assert desk.phase == "unconsented"
    assert {one.name for one in desk.state.tombstones.iterdir()} == {"G-aaaaaaaa", "G-bbbbbbbb"}
    assert load_consent(desk.state).consent.valid(time.time()) == ()
    await asyncio.gather(*desk.home._settling)
    assert not kept.exists()
    desk.say("pause")
    assert "nothing is granted" in desk.say("resume")


async def test_where_no_tombstone_can_be_written_nothing_runs_either(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(withdrawal, "write_tombstones", full)
    desk.say("revoke")
    assert not (desk.state.grants / "G-aaaaaaaa.toml").exists()
    desk.grant()
    desk.verbs.load()
    monkeypatch.setattr(withdrawal, "withdraw_grants", full)
    desk.say("revoke")
    assert (desk.phase, desk.intent.by_mqtt) == ("paused", False)
    await asyncio.gather(*desk.home._settling)


async def test_where_no_tombstone_outlives_a_power_cut_the_files_of_grants_are_set_aside(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(withdrawal, "sync_tombstones", fails)
    desk.say("revoke")
    await asyncio.gather(*desk.home._settling)
    for tombstone in desk.state.tombstones.iterdir():
        tombstone.unlink()  # as the power cut
    assert load_consent(desk.state).consent.valid(time.time()) == ()
    assert "no tombstone could be saved (Input/output error)" in caplog.text


def test_what_the_house_says_is_read_as_signals(desk: Desk) -> None:
    assert desk.home.outside()[0].value is None
    desk.home.hear("energy/price", b"0.25", True)
    assert desk.home.outside() == (OutsideReading("power price", 0.25),)
    desk.home.hear("energy/price", b"\x00" * 20_000, False)
    assert desk.home.outside()[0].value is None
    desk.home.hear("some/other", b"0.25", False)
    assert desk.home.outside()[0].value is None


def test_strangers_do_not_fill_the_log(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(50):
        desk.home.hear("lender/desk/set", b"x" * number, bool(number % 2))
    assert len(caplog.records) == 1
    assert desk.home.facts()["refused_strange"]
    caplog.clear()
    desk.home._refused["unknown"] = ""
    desk.say("resume")  # the owner's own is told of each time
    assert "nothing is paused" in caplog.text


def test_a_fault_of_ours_ends_no_lenderd(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_state: StateFolder) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(home_module, "read_consent", breaks)
    desk.say("pause")
    monkeypatch.undo()
    assert desk.say("pause") == ""

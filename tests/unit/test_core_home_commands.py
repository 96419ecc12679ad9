"""Commands by MQTT: the owner's alone, fresh, once, in order; and what they may do."""

import hashlib
import hmac

import pytest

from lender.core.consent import Intent
from lender.core.home_commands import (
    FRESH_S,
    RESUMES_MAX,
    CommandCame,
    CommandKey,
    HomeCommands,
    HomeEffect,
    KeepIntent,
    Refuse,
    RevokeAll,
    Weigh,
    WordWeighed,
    decode_command,
    tightened,
)

START = 1_763_000_000.0
KEY = CommandKey("1f" * 32, "a0" * 32)
OTHER = CommandKey("2e" * 32, "a0" * 32)
MQTT_PAUSE = Intent(paused=True, paused_at=START - 50, by_mqtt=True)
OWN_PAUSE = Intent(paused=True, paused_at=START - 50)
RESUMED = Intent()


def line(word: str, at: float = START, key: CommandKey = KEY, node: str = "desk") -> bytes:
    text = f"{at:.3f}"
    return f"{word} {text} {key.digest(node, word, text)}".encode()


def commands(started_at: float = START - 100) -> HomeCommands:
    return HomeCommands("desk", started_at)


def came(payload: bytes, *, retained: bool = False, key: CommandKey | None = KEY) -> CommandCame:
    return CommandCame(payload, retained, key)


def reason(effects: list[HomeEffect]) -> str:
    (effect,) = effects
    assert isinstance(effect, Refuse)
    return effect.reason


def weighed(
    word: str, intent: Intent = RESUMED, *, consented: bool = True, now: float = START
) -> HomeEffect:
    (effect,) = commands().handle(now, WordWeighed(word, intent, consented))
    return effect


# Whose it is.


@pytest.mark.parametrize("word", ["pause", "pause-90m", "pause-2h", "drain", "resume", "revoke"])
def test_a_command_by_the_key_is_weighed(word: str) -> None:
    assert commands().handle(START, came(line(word))) == [Weigh(word)]


def test_the_digest_is_the_nest_of_two_keyed_hashes() -> None:
    inner = hashlib.sha256(f"{KEY.inner}lender desk pause 1.5".encode()).hexdigest()
    outer = hashlib.sha256(f"{KEY.outer}{inner}".encode()).hexdigest()
    assert KEY.digest("desk", "pause", "1.5") == outer
    # What RFC 2104 makes of one key are two as long: one block of the hash each.
    assert hashlib.sha256().block_size == len(KEY.inner) == len(KEY.outer)
    assert hmac.new(b"", digestmod="sha256").block_size == len(KEY.inner)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (line("pause", key=OTHER), "not signed"),
        (line("pause", key=CommandKey(KEY.outer, KEY.inner)), "not signed"),
        (line("pause", node="attic"), "not signed"),  # another machine's
        (line("pause").replace(b"pause", b"drain"), "not signed"),
        (line("pause").replace(b".000", b".001"), "not signed"),
        (b"pause 1.0", "no command"),
        (b"ON", "no command"),
        (b"", "no command"),
        (line("grant"), "no command"),
        (line("resume --all"), "no command"),
        (line("pause-0m"), "no command"),
        (line("pause-99999h"), "no command"),
        (line("pause") + b"\n", "no command"),
        (line("pause") + b" " * 200, "no command"),
        (b"\xff" * 90, "no command"),
        (line("pause").upper(), "no command"),
    ],
)
def test_what_is_not_signed_for_this_machine_does_nothing(payload: bytes, why: str) -> None:
    assert why in reason(commands().handle(START, came(payload)))


def test_without_a_key_nothing_is_followed() -> None:
    assert "lender home" in reason(commands().handle(START, came(line("pause"), key=None)))


@pytest.mark.parametrize("text", ["", "1f" * 32, "1f" * 65, "1F" * 64, "1f" * 63 + "zz"])
def test_only_two_keys_of_64_digits_are_one(text: str) -> None:
    with pytest.raises(ValueError, match="128"):
        CommandKey.parse(text)


def test_a_key_reads_as_it_was_made() -> None:
    assert CommandKey.parse(KEY.inner + KEY.outer) == KEY


def test_a_command_is_taken_apart() -> None:
    command = decode_command(line("pause-90m"))
    assert (command.word, command.at) == ("pause-90m", f"{START:.3f}")


# When it was said.


def test_a_retained_command_is_none() -> None:
    assert "kept" in reason(commands().handle(START, came(line("pause"), retained=True)))


@pytest.mark.parametrize(("ahead_s", "words"), [(-31, "31 s ago"), (31, "31 s from now")])
def test_an_old_command_and_one_of_the_future_are_none(ahead_s: float, words: str) -> None:
    assert words in reason(commands().handle(START, came(line("pause", START + ahead_s))))


def test_a_command_counts_as_long_as_it_is_fresh() -> None:
    assert commands().handle(START + FRESH_S, came(line("pause"))) == [Weigh("pause")]


def test_a_command_counts_once() -> None:
    one = commands()
    assert one.handle(START, came(line("resume"))) == [Weigh("resume")]
    assert "before" in reason(one.handle(START + 1, came(line("resume"))))


def test_no_command_counts_after_a_later_one() -> None:
    one = commands()
    assert one.handle(START + 2, came(line("pause", START + 1))) == [Weigh("pause")]
    assert "later one" in reason(one.handle(START + 3, came(line("resume", START))))


def test_a_command_from_before_the_start_is_none() -> None:
    assert "began after" in reason(commands(START + 1).handle(START + 2, came(line("resume"))))


def test_what_is_not_signed_keeps_none_of_the_owners_from_counting() -> None:
    one = commands()
    one.handle(START, came(line("pause", START + 20, OTHER)))
    assert one.handle(START, came(line("pause"))) == [Weigh("pause")]


# What it may do.


def test_a_pause_is_mqtts_own() -> None:
    assert weighed("pause") == KeepIntent(Intent(paused=True, paused_at=START, by_mqtt=True))


@pytest.mark.parametrize(
    ("word", "span_s"), [("pause-90m", 5400), ("pause-2h", 7200), ("pause-9999h", 7 * 86_400)]
)
def test_a_pause_for_a_while_ends_by_itself_within_a_week(word: str, span_s: float) -> None:
    effect = weighed(word)
    assert isinstance(effect, KeepIntent)
    assert effect.intent.until == START + span_s


def test_a_drain_lets_finish_what_runs() -> None:
    effect = weighed("drain")
    assert isinstance(effect, KeepIntent)
    assert effect.intent.finishing(START + 1)


def test_revoke_asks_for_nothing() -> None:
    assert weighed("revoke", OWN_PAUSE, consented=False) == RevokeAll()


def test_mqtt_resumes_what_it_paused() -> None:
    effect = weighed("resume", MQTT_PAUSE)
    # With the time of that pause: one at the machine that is being written right now is later.
    assert effect == KeepIntent(Intent(paused=False, paused_at=MQTT_PAUSE.paused_at))


@pytest.mark.parametrize(
    ("intent", "consented", "why"),
    [
        (RESUMED, True, "nothing is paused"),
        (OWN_PAUSE, True, "paused at the machine"),
        (Intent(paused=True, paused_at=START, said_by=1001), True, "paused at the machine"),
        (Intent(paused=True, paused_at=START, finish_by=START + 60), True, "at the machine"),
        (Intent(paused=True, paused_at=1.0, until=START - 1, by_mqtt=True), True, "nothing is"),
        (MQTT_PAUSE, False, "nothing is granted"),
    ],
)
def test_mqtt_resumes_nothing_else(intent: Intent, consented: bool, why: str) -> None:  # noqa: FBT001
    effect = weighed("resume", intent, consented=consented)
    assert isinstance(effect, Refuse)
    assert why in effect.reason


def test_resumes_are_bounded_and_pauses_are_not() -> None:
    one = commands()
    said = [
        one.handle(START + n, WordWeighed("resume", MQTT_PAUSE, consented=True))[0]
        for n in range(RESUMES_MAX + 1)
    ]
    assert [type(effect) for effect in said] == [*[KeepIntent] * RESUMES_MAX, Refuse]
    assert isinstance(
        one.handle(START + 9, WordWeighed("pause", RESUMED, consented=True))[0], KeepIntent
    )
    assert isinstance(
        one.handle(START + 61, WordWeighed("resume", MQTT_PAUSE, consented=True))[0], KeepIntent
    )


# Over a pause that holds already.


def asked(until: float | None = None, finish_by: float | None = None) -> Intent:
    return Intent(True, START, until, finish_by, by_mqtt=True)


def test_over_mqtts_own_pause_its_last_word_holds() -> None:
    assert tightened(MQTT_PAUSE, asked(until=START + 60), START) == asked(until=START + 60)


def test_the_same_pause_again_is_not_another_word() -> None:
    assert tightened(MQTT_PAUSE, asked(), START) is MQTT_PAUSE


@pytest.mark.parametrize(
    ("own", "later", "until", "finish_by"),
    [
        ((None, None), (START + 60, None), None, None),
        ((START + 60, None), (START + 90, None), START + 90, None),
        ((START + 60, None), (None, None), None, None),
        ((START + 60, None), (START + 9, None), START + 60, None),
        ((None, START + 60), (None, None), None, None),
        ((None, START + 60), (None, START + 9), None, START + 9),
        ((None, None), (None, START + 60), None, None),
    ],
)
def test_over_a_pause_from_the_machine_it_only_tightens(
    own: tuple[float | None, float | None],
    later: tuple[float | None, float | None],
    until: float | None,
    finish_by: float | None,
) -> None:
    stored = Intent(True, START - 5, *own, said_by=1001)
    found = tightened(stored, asked(*later), START)
    assert (found.until, found.finish_by) == (until, finish_by)
    assert (found.by_mqtt, found.said_by, found.paused_at) == (False, 1001, START - 5)

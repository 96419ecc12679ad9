"""The `[policy]` table becomes the owner's limits; what is misspelt is refused by name."""

from dataclasses import fields
from pathlib import Path

import pytest

from lender.core.policy import NEVER, Limits, Policy, PresenceRule, Rung, Steps, Threshold
from lender.core.schedule import parse_when
from lender.core.usual import dedicated_policy, usual_policy
from lender.daemon.policy_settings import LimitsSettings, PresenceSettings
from lender.daemon.settings import DaemonSettings
from lender.service.settings import SettingsError, load

GIB = 1 << 30


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "lenderd.toml"
    path.write_text(text)
    settings = load(DaemonSettings, path, {}, {})
    return settings.policy.policy(
        4.0,
        reserve_memory_bytes=settings.reserve_memory_bytes,
        yield_cpu_others=settings.yield_cpu_others,
    )


def test_without_a_table_the_usual_limits_hold(tmp_path: Path) -> None:
    assert read(tmp_path, "") == usual_policy(4.0)


def test_a_machine_that_only_lends_says_so(tmp_path: Path) -> None:
    assert read(tmp_path, '[policy]\ndefaults = "dedicated"') == dedicated_policy()


def test_every_limit_can_be_set() -> None:
    # Conditions stand in [[mqtt.signals]], since they hold whoever is there.
    limits = {field.name for field in fields(Limits)} - {"conditions"}
    assert set(LimitsSettings.model_fields) == limits
    assert set(PresenceSettings.model_fields) == {field.name for field in fields(PresenceRule)}


def test_what_is_set_replaces_the_default_of_that_side_alone(tmp_path: Path) -> None:
    policy = read(
        tmp_path,
        """
        [policy.in_use]
        cores = 2
        pressure_cpu = { reduced = 8, frozen = { at = 30, back = 10 } }
        temperature_c = { frozen = -12 }
        gpu_others = false
        on_battery = "reduced"
        battery_enough = 0.5
        throttled = false
        metered = true
        hours = "Mon-Fri 18:00-08:00"
        memory_kept_bytes = { at = 2_000_000_000 }
        [policy.presence]
        away_after_s = 1200
        """,
    )
    here = policy.in_use
    assert here.cores == 2
    assert here.pressure_cpu == Steps(Threshold(8, 6), Threshold(30, 10))
    assert here.temperature_c == Steps(frozen=Threshold(-12, -17))
    assert here.gpu_others == NEVER
    assert (here.on_battery, here.throttled) == (Rung.REDUCED, Rung.FULL)
    assert here.battery_enough == Threshold(0.5, 0.6)
    assert here.metered
    assert here.hours == parse_when("Mon-Fri 18:00-08:00")
    assert here.memory_kept_bytes == Threshold(2e9, 2.5e9)
    assert here.pressure_io == usual_policy(4.0).in_use.pressure_io
    assert policy.away == usual_policy(4.0).away
    assert policy.presence == PresenceRule(away_after_s=1200)


def test_gpu_memory_that_is_kept_is_a_number_a_pair_or_nothing(tmp_path: Path) -> None:
    policy = read(tmp_path, f"policy.in_use.vram_kept_bytes = {2 * GIB}")
    assert policy.in_use.vram_kept_bytes == Threshold(2 * GIB, 2.5 * GIB)
    assert policy.away.vram_kept_bytes == usual_policy(4.0).away.vram_kept_bytes
    policy = read(tmp_path, "policy.away.vram_kept_bytes = { at = 1e9, back = 3e9 }")
    assert policy.away.vram_kept_bytes == Threshold(1e9, 3e9)
    policy = read(tmp_path, "policy.away.vram_kept_bytes = false")
    assert policy.away.vram_kept_bytes == Threshold(0, 0)
    with pytest.raises(SettingsError, match="vram_kept_bytes"):
        read(tmp_path, "policy.away.vram_kept_bytes = -1")


def test_the_keys_outside_of_the_table_hold_on_both_sides(tmp_path: Path) -> None:
    policy = read(tmp_path, f"reserve_memory_bytes = {2 * GIB}\nyield_cpu_others = 2")
    for limits in (policy.in_use, policy.away):
        assert limits.memory_kept_bytes == Threshold(2 * GIB, 2.5 * GIB)
        assert limits.cpu_others == Steps(frozen=Threshold(2, 1.5))


def test_the_table_beats_the_keys_outside_of_it(tmp_path: Path) -> None:
    text = "yield_cpu_others = 2\n[policy.away]\ncpu_others = { frozen = 3 }"
    policy = read(tmp_path, text)
    assert policy.away.cpu_others == Steps(frozen=Threshold(3, 2.25))
    assert policy.in_use.cpu_others == Steps(frozen=Threshold(2, 1.5))


def test_the_environment_can_say_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENDERD_POLICY", '{"defaults": "dedicated"}')
    assert read(tmp_path, "") == dedicated_policy()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[policy.inuse]", "policy.*'inuse'; did you mean 'in_use'"),
        ("[policy.in_use]\ncpu_other = 1", "policy.in_use.*did you mean 'cpu_others'"),
        ("[policy.in_use]\nzzqq = 1", "policy.in_use.*known: battery_enough"),
        ("[policy.away]\ncpu_others = { frozn = 1 }", "policy.away.cpu_others.*'frozen'"),
        ("[policy.away]\ncpu_others = { frozen = { at = 1, bak = 1 } }", "did you mean 'back'"),
        ("[policy.away]\ncpu_others = { frozen = { back = 1 } }", "write { at = 20, back = 10 }"),
        ('[policy.away]\ncpu_others = { frozen = "2" }', "'2' is no number"),
        ("[policy.away]\ncpu_others = { frozen = nan }", "nan is no number"),
        ("[policy.away]\ncpu_others = { frozen = true }", "True is no number"),
        ("[policy.away]\ncpu_others = 2", "policy.away.cpu_others.*{ reduced = 10, frozen"),
        ("[policy.away]\ncpu_others = {}", "policy.away.cpu_others.*{ reduced = 10, frozen"),
        ("[policy.away]\ncpu_others = { frozen = { at = 1, back = 2 } }", "back 2 must not be"),
        ("[policy.away]\ncpu_others = { reduced = 3, frozen = 2 }", "milder step 3"),
        ("[policy.away]\nreduced_share = 2", "policy.away.*reduced_share"),
        ('[policy.away]\ngame = "icy"', "policy.away.game.*evicted, frozen, full, reduced"),
        ("[policy.away]\ngame = 1", "policy.away.game.*evicted, frozen, full, reduced"),
        ("[policy.away]\nhours = 1", "policy.away.hours.*Mon-Fri 18:00"),
        ('[policy.away]\nhours = "Foo"', "policy.away.hours.*no day"),
        ("[policy.presence]\naway_after_s = 1", "policy.presence.*away_after_s"),
        ("[policy]\nhistory_days = -1", "policy.history_days"),
        ('[policy]\ndefaults = "mine"', "policy.defaults.*'usual' or 'dedicated'"),
        ("policy = 3", "policy.*dictionary"),
    ],
)
def test_a_wrong_limit_names_itself_and_the_mend(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(tmp_path, text)

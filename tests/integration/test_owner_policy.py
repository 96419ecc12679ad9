"""`lender policy`: the limits in words, and what others would have lent."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from owner_machine import LENDER

from lender.core.signals import Presence, Signals
from lender.daemon.signal_history import SignalHistory

GIB = 1 << 30


class Owner:
    def __init__(self, home: Path) -> None:
        self.state = home / "state"
        self.state.mkdir()
        self.config = home / "config" / "lender" / "lenderd.toml"
        self.config.parent.mkdir(parents=True)
        self.config.write_text("slots = 1\n")
        kept = {name: value for name, value in os.environ.items() if "LENDER" not in name}
        self._env = kept | {
            "XDG_CONFIG_HOME": str(home / "config"),
            "LENDER_STATE": str(self.state),
        }

    def lender(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [LENDER, "policy", *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.lender(*arguments, "--json").stdout)
        return told

    def records_an_evening(self) -> None:
        """Half an hour of work, a game, half an hour of nobody."""
        history = SignalHistory(self.state / "signals")
        begin = time.time() - 4000
        for at in range(0, 3600, 5):
            here = at < 1800
            presence = Presence(1.0 if here else at - 1800.0 + 900, None, desktop=True)
            playing = 600 <= at < 900
            history.record(begin + at, Signals(0.1, 8 * GIB, presence=presence, game=playing))
        history.close()


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


def test_show_tells_every_limit_for_both_sides(owner: Owner) -> None:
    done = owner.lender("show")
    assert done.returncode == 0
    lines = {line[:27].strip(): line[27:].split("  ") for line in done.stdout.splitlines()}
    assert "frozen 40 % / 20 %" in done.stdout
    assert [one.strip() for one in lines["a film or a call"] if one] == ["frozen", "no matter"]
    assert "away after 15 min, or with a locked screen" in done.stdout


def test_show_says_of_which_file_the_limits_are(owner: Owner) -> None:
    assert owner.lender("show").stdout.startswith(f"As in {owner.config}.\n")
    changed = owner.config.with_name("changed.toml")
    changed.write_text("slots = 1\n")
    shown = owner.lender("show", "--config", str(changed)).stdout
    assert shown.startswith(f"As in {changed}.\n")
    assert owner.json("show")["file"] == str(owner.config)
    owner.config.unlink()
    assert owner.lender("show").stdout.startswith("The defaults")
    assert owner.json("show")["file"] is None


def test_show_tells_the_limits_of_another_file_before_it_is_used(owner: Owner) -> None:
    changed = owner.config.with_name("changed.toml")
    changed.write_text(
        """
        [policy.in_use]
        on_battery = false
        battery_enough = 0.5
        metered = true
        cpu_others = false
        hours = "Sat-Sun"
        """
    )
    shown = owner.lender("show", "--config", str(changed)).stdout
    assert "only Sat-Sun" in shown
    assert "50 % / 60 %" in shown
    told = owner.json("show", "--config", str(changed))
    assert told["schema"] == "lender.policy/1"
    assert told["policy"]["in_use"]["on_battery"] == "full"
    assert told["policy"]["away"]["cores"] is None, "all of them"


def test_replay_compares_todays_limits_with_changed_ones(owner: Owner) -> None:
    owner.records_an_evening()
    changed = owner.config.with_name("changed.toml")
    changed.write_text("slots = 1\n[policy.in_use]\ngame = false\ncores = 0\n")
    done = owner.lender("replay", "--config", str(changed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("59m55s of readings since ")
    rows = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()[2:]}
    assert rows["stepped in"] == ["stepped", "in", "1", "time", "0", "times"]
    today, other = (float(cell) for cell in rows["core-hours to lend"][3:5])
    assert today > other > 0.3


def test_replay_as_json_is_versioned(owner: Owner) -> None:
    owner.records_an_evening()
    told = owner.json("replay")
    assert told["schema"] == "lender.policy-replay/1"
    assert told["today"]["stepped_in"] == {"game": 1}
    assert told["today"]["measured_s"] == 3595.0
    assert set(told["today"]["spent_s"]) == {"evicted", "frozen", "reduced", "full"}


def test_replay_counts_only_the_days_that_were_asked_for(owner: Owner) -> None:
    owner.records_an_evening()
    told = owner.json("replay", "--days", str(2000 / 86_400))
    assert 1500 < told["today"]["measured_s"] < 1610


def test_without_readings_it_says_where_they_come_from(owner: Owner) -> None:
    done = owner.lender("replay")
    assert done.returncode == 1
    assert "lenderd records them while it runs" in done.stderr


def test_a_misspelt_limit_is_refused_with_its_mend(owner: Owner) -> None:
    owner.config.write_text("[policy.in_use]\ncpu_other = 1\n")
    done = owner.lender("show")
    assert done.returncode == 2
    assert "did you mean 'cpu_others'" in done.stderr

"""Settings come from file, environment and command line; a misspelt one is refused by name."""

from pathlib import Path

import pytest

from broker.service.settings import BrokerSettings
from lender.daemon.settings import DaemonSettings
from lender.service.settings import SettingsError, load


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> DaemonSettings:
    path = tmp_path / "lenderd.toml"
    path.write_text(text)
    return load(DaemonSettings, path, {}, environment or {})


def test_the_file_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, 'url = "nats://lab:4222"\nslots = 3\nruntimes = ["wasm"]')
    assert (settings.url, settings.slots, settings.runtimes) == ("nats://lab:4222", 3, ["wasm"])


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENDERD_SLOTS", "7")
    assert read(tmp_path, "slots = 3", {"LENDERD_SLOTS": "7"}).slots == 7


def test_the_command_line_beats_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENDERD_NAME", "of-environment")
    path = tmp_path / "lenderd.toml"
    path.write_text('name = "of-file"')
    found = load(DaemonSettings, path, {"name": "mine"}, {"LENDERD_NAME": "of-environment"})
    assert found.name == "mine"


@pytest.mark.parametrize(
    ("key", "nearest"), [("slot", "slots"), ("reserve_memory", "reserve_memory_bytes")]
)
def test_an_unknown_key_in_the_file_names_the_nearest(
    tmp_path: Path, key: str, nearest: str
) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting '{key}'; did you mean '{nearest}'"):
        read(tmp_path, f"{key} = 1")


def test_an_unknown_key_in_the_environment_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LENDERD_SLOT'; did you mean 'LENDERD_SLOTS'"):
        read(tmp_path, "", {"LENDERD_SLOT": "1"})


def test_a_key_like_no_other_gets_the_list(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"known: .*slots"):
        read(tmp_path, "zzzzqqq = 1")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("slots = 0", "slots"),
        ('slots = "many"', "slots"),
        ('log_level = "loud"', "log_level"),
        ('runtimes = ["docker"]', "runtimes.0"),
        ("pools = []", "pools"),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(tmp_path, text)


def test_a_list_in_the_environment_says_how_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENDERD_POOLS", "default")
    with pytest.raises(SettingsError, match=r"pools.*written as JSON"):
        read(tmp_path, "", {"LENDERD_POOLS": "default"})


def test_a_file_that_is_no_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not TOML"):
        read(tmp_path, "= 3")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't read"):
        load(DaemonSettings, tmp_path / "none.toml", {}, {})


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("nats://127.0.0.1:4222", ("127.0.0.1",)),
        (
            "tls://user:word@Nats.Example.org.:4222, wss://[2001:db8::1]",
            ("nats.example.org", "2001:db8::1"),
        ),
        ("broker.lab:4222,broker2.lab", ("broker.lab", "broker2.lab")),
    ],
)
def test_the_fleets_hosts_are_read_from_its_url(url: str, hosts: tuple[str, ...]) -> None:
    assert DaemonSettings(url=url).hosts == hosts


def test_a_secret_that_the_service_manager_hands_over_is_found_without_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(tmp_path, "").credentials is None
    (tmp_path / "lenderd.creds").write_text("alice:secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read(tmp_path, "").credentials == tmp_path / "lenderd.creds"
    assert read(tmp_path, 'credentials = "/mine"').credentials == Path("/mine")
    assert BrokerSettings().credentials is None, "that is another's"

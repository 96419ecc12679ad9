"""What enrolment leaves behind: who reads it, when it counts, and what goes before it."""

import stat
from pathlib import Path

import pytest

from lender.client.way_in import WayIn
from lender.daemon.settings import DaemonSettings
from lender.link.membership import Membership, MembershipError, submitters_folder

URL, OTHER = "nats://fleet.lab:4222", "nats://other.lab:4222"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LENDER_URL", "LENDER_CREDS", "LENDER_CA", "LENDER_TRUST", "LENDERD_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "alice.nk"


def test_nobody_else_reads_it_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "fleet"
    assert Membership.read(folder) is None
    written = Membership.write(folder, URL, "creds", b"pem")
    assert Membership.read(folder) == written
    assert written.ca is not None
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Membership.write(folder, OTHER, "others", None)
    found = Membership.read(folder)
    assert found is not None
    assert (found.url, found.ca) == (OTHER, None)
    assert found.credentials.read_text() == "others"
    assert len(list(folder.iterdir())) == 2, "no draft, and no authority of another fleet"


def test_what_is_half_there_lets_nobody_in(tmp_path: Path) -> None:
    written = Membership.write(tmp_path, URL, "creds", None)
    written.credentials.unlink()
    assert Membership.read(tmp_path) is None
    written.credentials.write_text("creds")
    (tmp_path / "url").write_bytes(b"\xff\xfe")
    assert Membership.read(tmp_path) is None
    (tmp_path / "url").write_text("\n")
    assert Membership.read(tmp_path) is None


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MembershipError, match="can't write"):
        Membership.write(tmp_path / "file" / "fleet", URL, "creds", None)


def test_a_client_finds_its_fleet_by_its_key_and_goes_by_what_it_is_told(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def way_in(
        url: str | None = None,
        by: Path = key,
        credentials: Path | None = None,
        ca: Path | None = None,
    ) -> WayIn:
        return WayIn(url, by, credentials, ca)

    assert way_in().credentials == key
    found = Membership.write(submitters_folder(key), URL, "creds", b"pem")
    for one in (way_in(), way_in(URL)):
        assert (one.url, one.credentials, one.ca) == (URL, found.credentials, found.ca)
    elsewhere = way_in(OTHER)
    assert (elsewhere.url, elsewhere.credentials, elsewhere.ca) == (OTHER, key, None)
    said = tmp_path / "said"
    assert way_in(credentials=said).credentials == said
    assert way_in(ca=said).ca == said
    assert way_in(by=tmp_path / "bob.nk").url != URL
    monkeypatch.setenv("LENDER_URL", OTHER)
    assert way_in().credentials == key


def test_lenderd_goes_by_enrolment_where_its_settings_say_nothing(tmp_path: Path) -> None:
    found = Membership.write(tmp_path, URL, "creds", b"pem")
    said = tmp_path / "said"
    joined = DaemonSettings().joined(found)
    assert (joined.url, joined.credentials, joined.ca) == (URL, found.credentials, found.ca)
    assert joined.hosts == ("fleet.lab",), "no sandbox reaches it"
    assert DaemonSettings().joined(None).credentials is None
    assert DaemonSettings(url=URL).joined(found).credentials == found.credentials
    assert DaemonSettings(url=OTHER).joined(found).credentials is None
    both = DaemonSettings(credentials=said, ca=said).joined(found)
    assert (both.url, both.credentials, both.ca) == (URL, said, said)

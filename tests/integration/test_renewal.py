"""Whoever was let in gets a token of a new key by himself, and works on after the old one's end."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from enrolling_fleet import EnrollingFleet

from broker.deployment.signing import signing_keys
from deploy.local.fleet import command, wait_until
from lender.link.membership import Membership
from lender.link.way_in import read_way_in


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[EnrollingFleet]:
    with EnrollingFleet(open_folder) as running:
        yield running


def issuer(state: Path) -> str:
    """Whose word lets a machine in."""
    enrolled = Membership.read(state / "fleet")
    assert enrolled is not None
    token = read_way_in(enrolled.credentials).token
    assert token is not None
    return token.iss


def test_a_machine_renews_its_token_and_outlives_the_old_key(fleet: EnrollingFleet) -> None:
    desk = fleet.add("desk")
    with fleet.enroll_lender("desk") as enrolling:
        fleet.approve(enrolling.document()["code"])
        assert enrolling.ended() == 0, enrolling.complaint()
    fleet.grant(desk, "command")
    fleet.wait_lending(desk)
    said = fleet.broker_verb("rotate", "--url", fleet.url)
    assert said.returncode == 0, said.stderr
    old, new = signing_keys(fleet.deployment)["lender"]
    for arguments, wanted in (((), old), (("--renew",), new)):
        with fleet.enroll_lender("desk", *arguments) as again:
            assert again.document()["state"] == "enrolled"
            assert again.ended() == 0, again.complaint()
        assert issuer(desk.state) == wanted
    said = fleet.broker_verb("rotate", "--retire", "--yes", "--url", fleet.url)
    assert said.returncode == 0, said.stderr
    assert "lender desk U" in said.stdout
    seen = fleet.broker_verb("rotate", "--retire", "--url", fleet.url)
    assert "nobody any more: 0" in seen.stdout
    wait_until(desk.lending, "it lends again")
    fleet.wait_lending(desk)
    seen = subprocess.run(
        [command("lender"), "preflight", "--state", str(desk.state)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "what a lender may, and nothing else" in seen.stdout, seen.stderr + seen.stdout

"""Accounts signed anew keep what they had."""

import os
from pathlib import Path
from typing import Any

import pytest

from broker.deployment import claims, contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment
from broker.deployment.signing import (
    bring_up,
    by_the_table,
    is_of_another_table,
    sign_accounts,
    signing_keys,
)

NOW = 1_790_000_000.0


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path / "deployment")
    none = Certificates("", "", "", "")
    made.write(contents.new_deployment(made.folder, "x", 4222, none, os.urandom, NOW, 1 << 30))
    return made


def test_the_table_by_which_it_was_made_changes_nothing(deployment: Deployment) -> None:
    before = {path: path.read_bytes() for path in deployment.folder.rglob("*") if path.is_file()}
    sign_accounts(deployment, by_the_table(deployment, signing_keys(deployment)), NOW + 9)
    after = {path: path.read_bytes() for path in deployment.folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_broker_that_starts_a_server_bounds_strangers_of_an_older_deployment(
    deployment: Deployment,
) -> None:
    def unbounded(_: str, nats: dict[str, Any]) -> dict[str, Any]:
        return {**nats, "limits": {**nats["limits"], "conn": -1}}

    sign_accounts(deployment, unbounded, NOW)
    assert is_of_another_table(deployment)
    bring_up(deployment, os.urandom, NOW)
    limits = {name: deployment.said()[name]["nats"]["limits"] for name in claims.ACCOUNTS}
    assert limits["strangers"]["conn"] == claims.STRANGERS_CONNECTIONS_MAX
    assert {limits[name]["conn"] for name in claims.ACCOUNTS if name != "strangers"} == {-1}
    assert not is_of_another_table(deployment)


def test_limits_revocations_and_roles_of_a_later_version_stay(deployment: Deployment) -> None:
    later = {"kind": "user_scope", "key": "AX", "role": "later", "template": {}}

    def change(which: str, nats: dict[str, Any]) -> dict[str, Any]:
        if which == "system":
            return nats
        keys = nats["signing_keys"]
        added = {"signing_keys": [*keys, later]} if which == "core" else {}
        earlier = {"limits": {**nats["limits"], "conn": -1}}
        return {**claims.revoked(nats, "UX", 7), **added, **earlier, "exports": []}

    sign_accounts(deployment, change, NOW)
    keys = signing_keys(deployment)
    keys["lender"].append("ANEW")
    sign_accounts(deployment, by_the_table(deployment, keys), NOW)
    said = deployment.said()
    assert said["core"]["nats"]["limits"]["disk_storage"] == 1 << 30
    assert said["core"]["nats"]["exports"]
    connections = {name: said[name]["nats"]["limits"]["conn"] for name in claims.ACCOUNTS}
    bound = claims.STRANGERS_CONNECTIONS_MAX
    assert connections == {"core": -1, "lenders": -1, "submitters": -1, "strangers": bound}
    assert later in said["core"]["nats"]["signing_keys"]
    assert {tuple(said[name]["nats"]["revocations"]) for name in claims.ACCOUNTS} == {("UX",)}
    lenders = [one for one in said["lenders"]["nats"]["signing_keys"] if one["role"] == "lender"]
    assert [one["key"] for one in lenders] == keys["lender"]
    assert lenders[0]["template"] == lenders[1]["template"]


def test_servers_of_an_older_deployment_learn_to_know_all_accounts_as_they_start(
    deployment: Deployment,
) -> None:
    made = deployment.said()["system"]["nats"]

    def older(which: str, nats: dict[str, Any]) -> dict[str, Any]:
        if which == "system":
            return {key: value for key, value in nats.items() if key != "imports"}
        return {**nats, "exports": [one for one in nats["exports"] if one["name"] != claims.KNOWN]}

    sign_accounts(deployment, older, NOW)
    assert is_of_another_table(deployment)
    bring_up(deployment, os.urandom, NOW)
    assert not is_of_another_table(deployment)
    assert deployment.said()["system"]["nats"] == made
    assert deployment.tokens()["system"] in deployment.read(contents.ACCOUNTS_FILE)


def test_an_older_deployment_gets_what_a_later_one_has(deployment: Deployment) -> None:
    made = deployment.tokens()
    for path in ("server/tokens/strangers.jwt", "server/tokens/sentinel.jwt"):
        deployment.remove(path)
    deployment.remove(contents.signing_key_file("stranger"))
    assert is_of_another_table(deployment)
    bring_up(deployment, os.urandom, NOW + 9)
    assert not is_of_another_table(deployment)
    assert deployment.tokens()["lenders"] == made["lenders"], "nobody else is disturbed"
    said = deployment.said()
    stranger = deployment.key(contents.signing_key_file("stranger")).public
    assert said["sentinel"]["iss"] == stranger == signing_keys(deployment)["stranger"][0]
    assert said["sentinel"]["nats"]["issuer_account"] == said["strangers"]["sub"]
    assert {one["account"] for one in said["strangers"]["nats"]["imports"]} == {said["core"]["sub"]}
    assert deployment.tokens()["sentinel"] in deployment.read(contents.ACCOUNTS_FILE)


def test_of_two_changes_in_one_second_the_later_one_counts(deployment: Deployment) -> None:
    for number in (1, 2):
        sign_accounts(deployment, lambda _, nats: {**nats, "x": number}, NOW)  # noqa: B023
        assert deployment.said()["core"]["iat"] == int(NOW) + number


def test_a_command_that_was_cut_off_before_its_last_file_writes_it(deployment: Deployment) -> None:
    (deployment.folder / contents.ACCOUNTS_FILE).write_text("stale")
    sign_accounts(deployment, lambda _, nats: nats, NOW)
    assert deployment.tokens()["core"] in deployment.read(contents.ACCOUNTS_FILE)

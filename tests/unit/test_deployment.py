"""What `lender-broker init` makes: tokens, files, who can read them, and what it says."""

import json
import re
import stat
import subprocess
import time
from pathlib import Path

import pytest
from broker_command import broker_command
from broker_parts import COMMAND

from broker.deployment import claims, contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.tokens import Key, TokenError, decode, encode
from lender.link.credentials import credentials
from lender.protocol import subjects
from lender.protocol.permissions import RIGHTS, permits

GIVEN = Certificates("", "", "a certificate", "a key")
NOW = 1_790_000_000.0


def entropy() -> contents.Entropy:
    numbers = iter(range(1, 256))
    return lambda size: bytes([next(numbers)] * size)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path / "deployment")
    made.write(contents.new_deployment(made.folder, "home", 4222, GIVEN, entropy(), NOW))
    return made


def init(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return broker_command("init", "--state", str(state), *arguments)


def test_a_token_says_what_was_signed_and_shows_any_change() -> None:
    issuer, subject = Key.make("account", bytes(32)), Key.make("user", bytes([1] * 32))
    token = encode(subject.public, "desk", {"type": "user"}, issuer, NOW)
    found = decode(token)
    assert (found["sub"], found["iss"], found["iat"]) == (subject.public, issuer.public, int(NOW))
    assert found["nats"] == {"type": "user", "version": 2}
    header, body, signature = token.split(".")
    other = encode(subject.public, "attic", {"type": "user"}, issuer, NOW).split(".")
    for changed in (
        f"{header}.{other[1]}.{signature}",
        f"{header}.{body}.{other[2]}",
        f"{header}.{body}",
        "",
        "x.y.z",
        f"{header}.{body}.{signature}.x",
    ):
        with pytest.raises(TokenError):
            decode(changed)


def test_a_seed_makes_the_same_key_again() -> None:
    for kind, start in (("operator", "O"), ("account", "A"), ("user", "U")):
        key = Key.make(kind, bytes([7] * 32))  # type: ignore[arg-type]
        assert key.public.startswith(start)
        assert Key(key.seed + b"\n").public == key.public
    with pytest.raises(TokenError, match="no nkey seed"):
        Key(b"SUNONSENSE")


def test_only_the_owner_reads_what_is_made(deployment: Deployment) -> None:
    for path in deployment.folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(deployment.folder.stat().st_mode) == 0o700


def test_no_account_has_a_key_that_knows_no_bounds(deployment: Deployment) -> None:
    seeds = [
        line
        for path in deployment.folder.rglob("*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith("SA")
    ]
    scoped = deployment.identities().signing_keys
    assert sorted(Key(seed.encode()).public for seed in seeds) == sorted(scoped.values())


def test_the_server_gets_public_halves_alone(deployment: Deployment) -> None:
    for name in (contents.ACCOUNTS_FILE, contents.SERVER_FILE):
        text = deployment.read(name)
        assert not re.search(r"\bS[OAU][A-Z2-7]{56}\b|SEED", text)
        assert "mqtt {" not in text


def test_every_role_is_held_to_the_table(deployment: Deployment) -> None:
    tokens = deployment.tokens()
    for role in claims.ROLES:
        home = claims.HOME[role]
        (found,) = (
            one for one in decode(tokens[home])["nats"]["signing_keys"] if one["role"] == role
        )
        assert found["key"] == deployment.identities().signing_keys[role]
        for verb, field in (("publish", "pub"), ("subscribe", "sub")):
            wanted = [x.subject for x in RIGHTS if (x.role, x.verb) == (role, verb)]
            assert found["template"][field] == {"allow": wanted}
            assert wanted, "an empty list would allow everything"


def test_what_crosses_between_accounts_is_what_the_table_needs() -> None:
    crossings = claims.crossings_of(RIGHTS)
    for right in RIGHTS:
        home = claims.HOME[right.role]
        subject = re.sub(r"{{[^}]*}}", "U", right.subject)
        crosses = any(
            permits([one.subject], subject)
            for one in crossings
            if (one.giver, one.taker) == (right.towards, home)
        )
        assert crosses is (right.towards != home), right
    for one in crossings:
        assert not one.subject.startswith(("res", "work", "leader", "$JS.API.STREAM"))
        others = [x for x in crossings if x != one and x[:3] == one[:3]]
        assert not any(permits([x.subject], one.subject) for x in others)


def test_the_streams_have_the_bounds_that_were_named(tmp_path: Path) -> None:
    said = init(tmp_path, "--store-bytes", str(1 << 30))
    assert said.returncode == 0, said.stderr
    tokens = Deployment(tmp_path / "deployment").tokens()
    stores = {
        name: decode(tokens[name])["nats"]["limits"]["disk_storage"] for name in claims.ACCOUNTS
    }
    assert stores == {"core": 1 << 30, "lenders": 0, "submitters": 0, "strangers": 0}


def test_the_server_forgets_whom_it_has_answered(deployment: Deployment) -> None:
    """A hundred thousand small requests must not leave as many places for answers behind."""
    exports = decode(deployment.tokens()["core"])["nats"]["exports"]
    many = {one["subject"] for one in exports if one.get("response_type") == "Stream"}
    # Those of all brokers are asked by observers alone.
    services = {*subjects.SERVICE_FILTERS, subjects.of_service("*")}
    assert many == {"$JS.API.CONSUMER.MSG.NEXT.WORK.*"} | services
    assert {one.get("response_type") for one in exports if one["type"] == "stream"} == {None}


def test_credentials_hold_token_and_seed(deployment: Deployment) -> None:
    key = Key.make("user", bytes([99] * 32))
    classes = f"class:default_wasm_any_none_{key.public}_wasm"
    token = deployment.vouch("lender", key.public, "desk", (classes,), NOW)
    found = decode(token)
    assert found["iss"] == deployment.identities().signing_keys["lender"]
    assert found["nats"]["issuer_account"] == deployment.identities().accounts["lenders"]
    assert found["nats"]["tags"] == [classes, f"submitter:{key.public}"]
    text = credentials(token, key.seed)
    assert token in text
    assert key.seed.decode() in text


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("precious")
    with pytest.raises(DeploymentError, match="--deployment"):
        Deployment(tmp_path / "here").write({"a/b": "text"})
    assert [one.name for one in tmp_path.iterdir()] == ["here"], "no draft stays"
    assert (tmp_path / "here" / "mine").read_text() == "precious"


def test_what_is_damaged_says_how_to_mend_it(deployment: Deployment) -> None:
    (deployment.folder / contents.token_file("lenders")).write_text("x.y.z")
    with pytest.raises(DeploymentError, match="restore them"):
        deployment.identities()
    (deployment.folder / contents.OPERATOR_KEY).unlink()
    with pytest.raises(DeploymentError, match=r"operator\.nk.*restore it"):
        deployment.key(contents.OPERATOR_KEY)
    (deployment.folder / contents.signing_key_file("lender")).write_text("SAX")
    with pytest.raises(DeploymentError, match="no nkey seed"):
        deployment.key(contents.signing_key_file("lender"))


def test_init_makes_one_deployment_and_says_nothing_secret(tmp_path: Path) -> None:
    state = tmp_path / "state"
    began = time.time()
    said = init(state, "--host", "nats.lab", "10.0.0.7", "--port", "4333")
    assert (said.returncode, said.stderr) == (0, "")
    made = Deployment(state / "deployment")
    assert made.exists
    assert decode(made.tokens()["core"])["iat"] >= int(began)
    secrets = [
        line
        for path in made.folder.rglob("*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith(("SO", "SA", "SU", "ey"))
    ]
    assert len(secrets) > 8
    assert not any(secret in said.stdout for secret in secrets)
    server = made.read(contents.SERVER_FILE)
    assert "0.0.0.0:4333" in server
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    again = init(state, "--host", "elsewhere")
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing was changed" in again.stdout
    after = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    assert after == before


def test_init_takes_a_given_certificate(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("certificate")
    (tmp_path / "c.key").write_text("key")
    pair = ("--cert", str(tmp_path / "c.pem"), "--cert-key", str(tmp_path / "c.key"))
    assert init(tmp_path / "state", *pair).returncode == 0
    made = Deployment(tmp_path / "state" / "deployment")
    assert made.read(contents.CERTIFICATE) == "certificate"
    assert not (made.folder / contents.AUTHORITY).exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cert", "c.pem"), "go together"),
        (("--cert", "/none", "--cert-key", "/none"), "can't read the certificate"),
        (("--name", 'a"b'), "letters"),
        (("--store-bytes", "7"), "at least"),
        (("--host", "bücher.example"), "a name or an address"),
    ],
)
def test_mistakes_of_init_say_how_to_mend_them(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    said = init(tmp_path, *arguments)
    assert said.returncode in (1, 2)
    assert says in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "deployment").exists()


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = init(tmp_path / "file" / "state")
    assert said.returncode == 1
    assert "can't make" in said.stderr


def test_a_deployment_that_was_named_and_is_none_is_told(tmp_path: Path) -> None:
    said = subprocess.run(
        [*COMMAND, "serve", "--embedded", "--state", str(tmp_path), *("--deployment", "none")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert said.returncode == 1
    assert "lender-broker init" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_revoked_key_stands_in_the_accounts_claims() -> None:
    nats = claims.revoked({"type": "account", "revocations": {"UA": 1}}, "UB", 7.9)
    assert nats["revocations"] == {"UA": 1, "UB": 8}, "of a key let in again, too"
    assert json.dumps(nats)


def test_a_stranger_has_a_token_whose_key_nobody_has(deployment: Deployment) -> None:
    token = deployment.tokens()[contents.SENTINEL]
    assert f"default_sentinel: {json.dumps(token)}" in deployment.read(contents.ACCOUNTS_FILE)
    found, who = decode(token), deployment.identities()
    assert found["iss"] == who.signing_keys["stranger"]
    assert found["nats"]["issuer_account"] == who.accounts["strangers"]
    (scope,) = decode(deployment.tokens()["strangers"])["nats"]["signing_keys"]
    assert scope["template"]["bearer_token"] is True
    assert 0 < scope["template"]["payload"] <= 1 << 16
    seeds = [
        line
        for path in deployment.folder.rglob("*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith("SU")
    ]
    assert found["sub"] not in {Key(seed.encode()).public for seed in seeds}

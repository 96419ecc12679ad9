"""The folders of a cluster's servers: whole, each for its own machine, and left alone once made."""

import stat
import subprocess
import time
from pathlib import Path
from typing import Self, cast

import pytest
from broker_command import broker_command
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.deployment import certificates, contents, server_config
from broker.deployment.cluster import (
    ROUTES_AUTHORITY,
    ROUTES_AUTHORITY_KEY,
    Ports,
    complete_cluster,
    everyone,
    member_file,
    members,
)
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.open_routes import is_open, open_routes
from broker.deployment.renewal import renew_certificates
from broker.deployment.rotation import Running
from broker.deployment.signing import by_the_table, sign_accounts, signing_keys
from broker.deployment.succession import add_authority

NOW = time.time()
HOSTS = ["nats-1.lab", "nats-2.lab", "10.0.0.7"]
PORTS = Ports(4222, 6222)


def entropy() -> contents.Entropy:
    numbers = iter(range(1, 256))
    return lambda size: bytes([next(numbers)] * size)


def made(folder: Path, given: Certificates | None = None) -> Deployment:
    deployment = Deployment(folder / "deployment")
    pair = given or certificates.make("home", ["localhost"], NOW)
    deployment.write(contents.new_deployment(deployment.folder, "home", 4222, pair, entropy(), NOW))
    return deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    found = made(tmp_path)
    assert complete_cluster(found, everyone(found, HOSTS), PORTS, NOW) == HOSTS
    return found


def files_of(deployment: Deployment) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in deployment.folder.rglob("*") if path.is_file()}


def usage(text: str) -> set[str]:
    certificate = x509.load_pem_x509_certificate(text.encode())
    extension = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    return {one.dotted_string for one in extension.value}


def vouches(authority: str, text: str) -> bool:
    issuer = x509.load_pem_x509_certificate(authority.encode())
    try:
        x509.load_pem_x509_certificate(text.encode()).verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - a wrong name, or a wrong signature
        return False
    return True


def test_each_server_has_all_that_it_needs_and_a_route_certificate_of_its_own(
    deployment: Deployment,
) -> None:
    assert members(deployment) == sorted(HOSTS)
    routes, fleet = deployment.read(ROUTES_AUTHORITY), deployment.read(contents.AUTHORITY)
    seen: set[str] = set()
    for host in HOSTS:
        folder = deployment.folder / "cluster" / host
        texts = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(texts) == {
            "server.conf",
            "accounts.conf",
            "server.pem",
            "server.key",
            "route.pem",
            "route.key",
            "routes-ca.pem",
        }
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
        assert vouches(routes, texts["route.pem"])
        assert not vouches(fleet, texts["route.pem"])
        assert vouches(fleet, texts["server.pem"])
        assert not vouches(routes, texts["server.pem"])
        both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert usage(texts["route.pem"]) == {one.dotted_string for one in both}
        assert usage(texts["server.pem"]) == {ExtendedKeyUsageOID.SERVER_AUTH.dotted_string}
        assert texts["accounts.conf"] == deployment.read(contents.ACCOUNTS_FILE)
        config = texts["server.conf"]
        assert f'server_name: "{host}"' in config
        assert "verify: true" in config
        assert all((f"nats://{one}:6222" in config) is (one != host) for one in HOSTS)
        assert str(deployment.folder) not in config, "it goes to another machine"
        seen |= {texts["route.key"], texts["server.key"]}
    assert len(seen) == 2 * len(HOSTS)
    assert open_routes(deployment) == []


def test_what_stands_is_left_alone_and_a_later_server_knows_the_earlier_ones(
    deployment: Deployment,
) -> None:
    before = files_of(deployment)
    assert complete_cluster(deployment, everyone(deployment, HOSTS), PORTS, NOW) == []
    assert files_of(deployment) == before
    wanted = everyone(deployment, ["NATS-4.lab."])
    assert complete_cluster(deployment, wanted, PORTS, NOW) == ["nats-4.lab"]
    after = files_of(deployment)
    assert {path: after[path] for path in before} == before
    config = deployment.read(member_file("nats-4.lab", "server.conf"))
    assert all(f"nats://{one}:6222" in config for one in HOSTS)
    routes = deployment.read(ROUTES_AUTHORITY)
    assert vouches(routes, deployment.read(member_file("nats-4.lab", "route.pem")))


@pytest.mark.parametrize("lost", ["server.conf", "all"])
def test_what_was_cut_off_is_done_anew(deployment: Deployment, lost: str) -> None:
    """The configuration is the last to be written, and so is the authority's certificate."""
    host = HOSTS[1]
    deployment.remove(member_file(host, "server.conf"))
    if lost == "all":
        for one in HOSTS:
            for path in (deployment.folder / "cluster" / one).iterdir():
                path.unlink()
        deployment.remove(ROUTES_AUTHORITY)
    again = complete_cluster(deployment, everyone(deployment, HOSTS), PORTS, NOW)
    assert again == (HOSTS if lost == "all" else [host])
    for one in HOSTS:
        texts = [deployment.read(member_file(one, name)) for name in ("route.pem", "route.key")]
        assert vouches(deployment.read(ROUTES_AUTHORITY), texts[0])
        given = Certificates(
            deployment.read(ROUTES_AUTHORITY), deployment.read(ROUTES_AUTHORITY_KEY), *texts
        )
        fresh = certificates.renew(given, (), NOW + 1)
        assert vouches(given.authority, fresh), "key and certificate fit each other"
        assert usage(fresh) == usage(texts[0])


def test_a_given_certificate_is_shown_to_clients_and_never_to_servers(tmp_path: Path) -> None:
    deployment = made(tmp_path, Certificates("", "", "given", "given key"))
    complete_cluster(deployment, everyone(deployment, HOSTS), PORTS, NOW)
    for host in HOSTS:
        assert deployment.read(member_file(host, "server.pem")) == "given"
        assert deployment.read(member_file(host, "server.key")) == "given key"
        routes = deployment.read(member_file(host, "routes-ca.pem"))
        assert vouches(routes, deployment.read(member_file(host, "route.pem")))
    # Whose authority the operator has put beside it, for all members.
    theirs = certificates.make_authority("theirs", NOW).certificate
    (deployment.folder / "ca.pem").write_text(theirs)
    assert deployment.authorities() == theirs
    later = "nats-9.lab"
    assert complete_cluster(deployment, [*HOSTS, later], PORTS, NOW) == [later]
    assert deployment.read(member_file(later, "server.pem")) == "given"
    with pytest.raises(DeploymentError, match="was given"):
        add_authority(deployment, NOW)


class ToldToReload:
    """Stands for servers that run."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def reload(self) -> list[str]:
        return ["nats-1"]


async def test_what_was_given_is_not_renewed_and_routes_are(tmp_path: Path) -> None:
    deployment = made(tmp_path, Certificates("", "", "given", "given key"))
    complete_cluster(deployment, everyone(deployment, HOSTS), PORTS, NOW)
    before = {host: deployment.read(member_file(host, "route.pem")) for host in HOSTS}
    files, told = await renew_certificates(
        deployment, ["nats.lab"], cast("Running", ToldToReload), NOW + 5
    )
    assert (sorted(files), told) == (
        sorted(member_file(host, "route.pem") for host in HOSTS),
        ["nats-1"],
    )
    for host in HOSTS:
        after = deployment.read(member_file(host, "route.pem"))
        assert after != before[host]
        assert vouches(deployment.read(ROUTES_AUTHORITY), after)
        assert b"nats.lab" not in x509.load_pem_x509_certificate(after.encode()).public_bytes(
            Encoding.DER
        ), "it is for clients alone"
    (deployment.folder / ROUTES_AUTHORITY_KEY).unlink()
    with pytest.raises(DeploymentError, match="not made here"):
        await renew_certificates(deployment, (), cast("Running", ToldToReload), NOW)


def test_accounts_that_are_signed_anew_reach_every_servers_folder(deployment: Deployment) -> None:
    keys = signing_keys(deployment)
    keys["lender"].append("ANEW")
    sign_accounts(deployment, by_the_table(deployment, keys), NOW)
    texts = {deployment.read(path) for path in deployment.accounts_files()}
    assert len(deployment.accounts_files()) == 1 + len(HOSTS)
    assert texts == {deployment.read(contents.ACCOUNTS_FILE)}
    assert deployment.tokens()["lenders"] in texts.pop()


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (["a", "b"], "at least 3"),
        (["a", "a", "A"], "at least 3"),
        (["a", "b", "../c"], "is no host"),
        (["a", "b", "c:6222"], "is no host"),
        (["a", "b", ""], "is no host"),
        (["a", "b", '"c'], "is no host"),
        (["a", "b", "-c"], "is no host"),
        (["a", "b", "c" * 64], "is no host"),
    ],
)
def test_hosts_that_are_none_are_told(tmp_path: Path, hosts: list[str], says: str) -> None:
    with pytest.raises(DeploymentError, match=says):
        everyone(Deployment(tmp_path / "deployment"), hosts)


def test_addresses_of_either_kind_are_hosts(tmp_path: Path) -> None:
    deployment = made(tmp_path)
    wanted = everyone(deployment, ["10.0.0.7", "FD00::1", "nats.lab"])
    assert wanted == ["10.0.0.7", "fd00::1", "nats.lab"]
    complete_cluster(deployment, wanted, PORTS, NOW)
    assert '"nats://[fd00::1]:6222"' in deployment.read(member_file("nats.lab", "server.conf"))


def init(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return broker_command("init", "--state", str(state), *arguments)


OLD = """
# as the documentation once had it
cluster { name: fleet, listen: "0.0.0.0:6222", routes: ["nats://nats-2.lab:6222"] }
"""


def test_init_says_what_it_made_and_tells_of_an_open_port(tmp_path: Path) -> None:
    said = init(tmp_path, "--cluster", "a", "b", "../c")
    assert (said.returncode, "is no host" in said.stderr) == (1, True), said.stderr
    assert not (tmp_path / "deployment").exists()
    said = init(tmp_path, "--cluster", *HOSTS)
    assert (said.returncode, said.stderr) == (0, "")
    assert all(f"cluster/{host}/  goes to {host}" in said.stdout for host in HOSTS)
    assert "WARNING" not in said.stdout
    again = init(tmp_path, "--cluster", *HOSTS)
    assert "nothing was changed" in again.stdout
    deployment = Deployment(tmp_path / "deployment")
    secrets = [
        line
        for path in deployment.folder.rglob("*.key")
        for line in path.read_text().splitlines()[1:-1]
    ]
    assert len(secrets) > 2 * len(HOSTS)
    assert not any(secret in said.stdout for secret in secrets)
    with (deployment.folder / contents.SERVER_FILE).open("a") as file:
        file.write(OLD)
    told = init(tmp_path)
    assert (told.returncode, "nothing was changed" in told.stdout) == (0, True)
    assert "whoever reaches that port joins as a server" in told.stdout
    assert str(deployment.folder / contents.SERVER_FILE) in told.stdout


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OLD, True),
        (server_config.alone(Path("/x"), "home", 4222), False),
        (server_config.member("a", ["b", "c"], "home", 4222, 6222), False),
        ("cluster { listen: 1.2.3.4:6222, routes: [ nats-route://b:6222 ] }", True),
        ("cluster: { port: 6222, tls: { cert_file: x } }", True),
        ("cluster { tls { ca_file: './ca.pem' } }", False),
        ("Cluster = { TLS = { CA_File = x } }", False),
        ("cluster { # tls { ca_file: x }\n port: 6222 }", True),
        ("cluster { // tls { ca_file: x }\n port: 6222 }", True),
        ('cluster { name: "tls { ca_file: x }" }', True),
        ('tls { ca_file: x }\ncluster { routes: ["nats://b}:1"] }', True),
        ('# cluster { }\nname: "cluster { }"', False),
        ("", False),
        ("}}{ cluster", False),
    ],
)
def test_open_routes_are_found_in_a_servers_file(config: str, expected: object) -> None:
    assert is_open(config) is expected

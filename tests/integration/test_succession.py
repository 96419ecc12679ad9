"""A new authority for what servers show: nobody is cut off who learnt of it in time."""

import ssl
import time
from pathlib import Path

import pytest
from nats_server import until
from vouching_server import VouchingServer, fleet

from broker.deployment import certificates, contents
from broker.deployment.contents import Certificates
from broker.deployment.folder import Deployment, DeploymentError
from broker.deployment.servers import servers
from broker.deployment.succession import NEXT, NEXT_KEY, add_authority, retire_authority
from lender.link.connection import ConnectError, Connection, connect
from lender.link.probe import Line, Place
from lender.link.way_in import read_way_in

__all__ = ["fleet"]  # a fixture
PATIENT_S = 30.0


async def as_machine(
    fleet: VouchingServer, credentials: Path, ca: Path, timeout_s: float = PATIENT_S
) -> Connection:
    """One elsewhere, which has its own copy of who vouches for servers."""
    key = read_way_in(credentials).public_key
    return await connect(
        fleet.url,
        name=credentials.stem,
        credentials=credentials,
        ca=ca,
        inbox_prefix=f"_INBOX_{key}",
        timeout_s=timeout_s,
    )


def is_believed(fleet: VouchingServer, authorities: str) -> bool:
    """Whether who knows these takes the server for ours."""
    try:
        with Line(Place("127.0.0.1", fleet.port), PATIENT_S) as line:
            line.open(line.resolve())
            line.greet()
            line.secure(ssl.create_default_context(cadata=authorities))
    except ssl.SSLCertVerificationError:
        return False
    return True


async def test_who_fetched_the_new_authority_comes_back_and_who_did_not_is_out(
    fleet: VouchingServer,
) -> None:
    credentials = {name: fleet.let_in("lender", name) for name in ("desk", "attic")}
    old = fleet.ca.read_text()
    known = {name: fleet.folder / f"{name}.pem" for name in credentials}
    for path in known.values():
        path.write_text(old)
    desk, attic = [
        await as_machine(fleet, credentials[name], known[name]) for name in ("desk", "attic")
    ]

    said = fleet.rotate("--authority")
    assert (said.returncode, said.stderr) == (0, "")
    assert "lender enroll --renew" in said.stdout
    both = fleet.ca.read_text()
    assert both.startswith(old)
    new = both.removeprefix(old)
    assert fleet.rotate("--authority").returncode == 0
    assert fleet.ca.read_text() == both, "done again it changes nothing"
    assert fleet.deployment.read(NEXT_KEY) not in said.stdout
    assert is_believed(fleet, old), "servers are as they were"
    known["desk"].write_text(both)

    asked = fleet.rotate("--authority", "--retire")
    assert (asked.returncode, "add --yes" in asked.stderr) == (1, True), asked
    assert is_believed(fleet, old)
    said = fleet.rotate("--authority", "--retire", "--yes")
    assert (said.returncode, said.stderr) == (0, "")
    assert fleet.ca.read_text() == new
    assert (is_believed(fleet, new), is_believed(fleet, old)) == (True, False)
    for path in (NEXT, NEXT_KEY):
        assert not (fleet.deployment.folder / path).exists()
    assert desk.connected
    assert attic.connected

    fleet.kill()
    await until(lambda: not desk.connected and not attic.connected, PATIENT_S)
    await fleet.start()
    await until(lambda: desk.connected, PATIENT_S)  # it has read the file anew
    await (await as_machine(fleet, credentials["desk"], known["desk"])).close()
    assert not attic.connected
    with pytest.raises(ConnectError, match="unable to get local issuer"):
        await as_machine(fleet, credentials["attic"], known["attic"], 1.0)
    known["attic"].write_text(new)  # by hand
    await until(lambda: attic.connected, PATIENT_S)
    for line in (desk, attic):
        await line.close()

    # And all goes on from there.
    assert fleet.rotate("--authority", "--retire", "--yes").returncode == 1
    assert fleet.rotate("--authority").returncode == 0
    assert fleet.rotate("--authority", "--retire", "--yes").returncode == 0
    assert not is_believed(fleet, new)


class CrashError(Exception):
    """The process ended here."""


def ends_at(patched: pytest.MonkeyPatch, at: int) -> None:
    """Have the process end, as it were, before the change of this number."""
    count = 0
    replace, remove = Deployment.replace, Deployment.remove

    def passed() -> None:
        nonlocal count
        if count == at:
            raise CrashError
        count += 1

    def replaced(deployment: Deployment, files: dict[str, str]) -> None:
        for path, text in files.items():
            passed()
            replace(deployment, {path: text})

    def removed(deployment: Deployment, path: str) -> None:
        passed()
        remove(deployment, path)

    patched.setattr(Deployment, "replace", replaced)
    patched.setattr(Deployment, "remove", removed)


async def test_a_succession_that_is_cut_off_anywhere_is_completed(
    fleet: VouchingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = 0, False

    async def succeed() -> None:
        add_authority(fleet.deployment, time.time())
        await retire_authority(
            fleet.deployment,
            lambda: servers(fleet.deployment, fleet.url, fleet.ca),
            fleet.url,
            time.time(),
        )

    while not done:
        before = fleet.deployment.read(contents.AUTHORITY)
        with monkeypatch.context() as patched:
            ends_at(patched, step)
            try:
                await succeed()
                done = True
            except CrashError:
                pass
        assert is_believed(fleet, fleet.deployment.read(contents.AUTHORITY)), f"step {step}"
        if not done:
            await succeed()
        after = fleet.deployment.read(contents.AUTHORITY)
        assert (after != before, is_believed(fleet, after)) == (True, True), f"step {step}"
        paths = (
            contents.AUTHORITY,
            contents.AUTHORITY_KEY,
            contents.CERTIFICATE,
            contents.CERTIFICATE_KEY,
        )
        given = Certificates(*(fleet.deployment.read(path) for path in paths))
        assert certificates.renew(given, (), time.time()), "the key is the authority's"
        step += 1
    assert step > 6


async def test_a_server_elsewhere_that_has_no_copy_yet_holds_it_up(
    fleet: VouchingServer,
) -> None:
    """As of a cluster: its certificate lies on another machine."""
    config = fleet.deployment.folder / contents.SERVER_FILE
    elsewhere = fleet.folder / "elsewhere.pem"
    shown = fleet.deployment.folder / contents.CERTIFICATE
    elsewhere.write_text(shown.read_text())
    config.write_text(config.read_text().replace(str(shown), str(elsewhere)))
    fleet.kill()
    await fleet.start()
    assert fleet.rotate("--authority").returncode == 0
    both = fleet.ca.read_text()
    said = fleet.rotate("--authority", "--retire", "--yes")
    assert (said.returncode, "copy its folder there" in said.stderr) == (1, True), said
    assert fleet.ca.read_text() == both, "both are vouched for"
    made = shown.read_text()
    assert "copy its folder there" in fleet.rotate("--authority", "--retire", "--yes").stderr
    assert shown.read_text() == made, "what was copied meanwhile is still right"
    elsewhere.write_text(made)
    said = fleet.rotate("--authority", "--retire", "--yes")
    assert said.returncode == 0, said.stderr


def test_where_there_is_no_authority_of_ours_there_is_no_successor(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "deployment")
    given = Certificates("", "", "given", "key")
    deployment.write(contents.new_deployment(deployment.folder, "x", 4222, given, bytes, 0.0))
    with pytest.raises(DeploymentError, match="was given"):
        add_authority(deployment, 0.0)

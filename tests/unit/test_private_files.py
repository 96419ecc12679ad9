"""A private key is its owner's alone, or it is not written, or not used."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.deployment import certificates, contents
from broker.deployment.folder import Deployment, DeploymentError
from lender.client.errors import KeyFault
from lender.client.keys import create_key
from lender.daemon.identity import load_or_create
from lender.link.membership import Membership, MembershipError
from lender.protocol.permissions import Role


@pytest.fixture
def without_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as FAT has them, or a Windows drive in WSL: everybody's, whatever mode is asked for."""
    as_usual = os.open

    def opened(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        handle = as_usual(path, flags, mode, **rest)
        if flags & os.O_CREAT:
            os.fchmod(handle, 0o755)
        return handle

    monkeypatch.setattr(os, "open", opened)


def deploy(folder: Path) -> Deployment:
    deployment = Deployment(folder / "deployment")
    made = certificates.make("x", ["127.0.0.1"], time.time())
    deployment.write(
        contents.new_deployment(deployment.folder, "x", 4222, made, os.urandom, time.time())
    )
    return deployment


MAKERS: dict[str, Callable[[Path], object]] = {
    "submitter": lambda folder: create_key(folder / "alice.nk", bytes(32)),
    "lender": lambda folder: load_or_create(folder / "identity.nk"),
    "membership": lambda folder: Membership.write(folder / "fleet", "nats://x", "seed", None),
    "deployment": deploy,
}


@pytest.mark.parametrize("who", MAKERS)
@pytest.mark.usefixtures("without_modes")
def test_no_key_is_written_where_others_would_read_it(tmp_path: Path, who: str) -> None:
    faults = (KeyFault, MembershipError, DeploymentError, OSError)
    with pytest.raises(faults, match="lets others read it"):
        MAKERS[who](tmp_path)
    assert all(path.stat().st_size == 0 for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_key_of_the_fleets_that_others_read_lets_nobody_in(tmp_path: Path, mode: int) -> None:
    """Copied, or restored from a backup."""
    deployment = deploy(tmp_path)
    role: Role = "lender"
    public = "U" + 55 * "A"
    path = deployment.folder / contents.signing_key_file(role)
    for used in (0o600, 0o440):  # as Kubernetes has a group read it
        path.chmod(used)
        assert deployment.vouch(role, public, "x", (), 0.0)
    path.chmod(mode)
    with pytest.raises(DeploymentError, match="chmod 600"):
        deployment.vouch(role, public, "x", (), 0.0)

"""Started by root, lenderd becomes an ordinary user that can read what root agreed to before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import USER, open_folder

from lender.protocol.signature import Signer, seed_from_entropy

__all__ = ["open_folder"]  # a fixture

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")

_BECOME = """
import sys
from pathlib import Path
from lender.daemon.privilege import become
from lender.sandbox.files import scratch# may lie where only root reads
from lender.state.consent_files import load_consent
from lender.state.folder import StateFolder
become((65534, 65534), Path(sys.argv[1]))
reading = load_consent(StateFolder(Path(sys.argv[1])))
print(*(grant.id for grant in reading.consent.grants), *reading.ignored)
"""


@needs_root
def test_a_grant_that_root_wrote_before_the_first_start_counts(open_folder: Path) -> None:
    state = open_folder / "state"
    lender = Path(sys.executable).with_name("lender")
    submitter = Signer(seed_from_entropy(b"b" * 32)).public_key
    grant = [lender, "grant", submitter, "--class", "wasm", "--cpu", "1", "--mem", "1G"]
    options = ["--when", "always", "--expires", "1d", "--yes", "--json", "--state", str(state)]
    subprocess.run([*grant, *options], check=True, capture_output=True)
    (granted,) = (path.stem for path in (state / "grants").iterdir())
    assert become(state) == granted


@needs_root
@pytest.mark.parametrize("way", ["a second name", "a link", "a folder of others"])
def test_nothing_else_of_roots_is_given_away(open_folder: Path, way: str) -> None:
    grants = open_folder / "state" / "grants"
    grants.mkdir(mode=0o700, parents=True)
    theirs = open_folder / "secret"
    theirs.write_text("root's")
    if way == "a second name":
        (grants / "G-1.toml").hardlink_to(theirs)
    elif way == "a link":
        (grants / "G-1.toml").symlink_to(theirs)
    else:
        assert USER is not None
        os.chown(grants, *USER)
        theirs = theirs.rename(grants / "G-1.toml")
    become(open_folder / "state")
    assert theirs.stat().st_uid == 0


def become(state: Path) -> str:
    """The grants that count for lenderd after it gave up root."""
    done = subprocess.run(
        [sys.executable, "-c", _BECOME, str(state)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()

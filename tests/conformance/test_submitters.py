"""Submitters in other languages, with nothing of ours: on a fleet whose server knows everybody.

Node.js needs packages of the NATS project, which `make conformance` fetches.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vouched_fleet import VouchedFleet

HERE = Path(__file__).parent
NODE = HERE / "node"
DOCUMENT = HERE.parents[1] / "docs" / "asyncapi.json"

# The first of them waits for a whole fleet, on a machine that may be busy.
pytestmark = pytest.mark.timeout(180)

_WITHIN_S = 90

_MISSING = "Node.js" if shutil.which("node") is None else "packages of tests/conformance/node"
with_node = pytest.mark.skipif(
    not shutil.which("node") or not (NODE / "node_modules").is_dir(),
    reason=f"{_MISSING} missing: make conformance",
)


def said(*command: str | Path) -> str:
    """What a program prints; it fails with what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def fleet(open_folder: Path) -> Iterator[VouchedFleet]:
    with VouchedFleet(open_folder, ("desk",)) as running:
        yield running


@with_node
def test_a_submitter_in_node_gets_value_and_output(fleet: VouchedFleet) -> None:
    told = json.loads(said("node", NODE / "submit.mjs", fleet.url, fleet.submitter_credentials))
    assert told == {
        "state": "succeeded",
        "value_is_the_input": True,
        "output_is_its_digest": True,
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_a_submitter_needs_no_more_than_a_shell(fleet: VouchedFleet) -> None:
    host, port = fleet.url.removeprefix("nats://").rsplit(":", 1)
    who = (host, port, fleet.submitter_credentials, fleet.submitter)
    state, value, output = said(HERE / "shell" / "submit", *who).splitlines()
    assert state == "succeeded"
    assert value.endswith("  data.bin")
    assert output == "the output is the input"


@with_node
def test_the_document_is_asyncapi_as_its_project_has_it(tmp_path: Path) -> None:
    said("node", NODE / "asyncapi.mjs", DOCUMENT)
    broken = json.loads(DOCUMENT.read_text())
    broken["operations"]["submitter-send-submit"]["action"] = "publish"
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    done = subprocess.run(
        ["node", NODE / "asyncapi.mjs", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "/operations/submitter-send-submit/action" in done.stderr

"""What crun is told, without crun."""

import base64
import json

import pytest
from sandboxes import LIMITS

from lender.sandbox.walls import container


def told(**changed: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "root": "/cache/root",
        "scratch": "/scratch",
        "argv": ["sh"],
        "env": {"A": "b=c"},
        "folder": "/work",
        "inputs": {},
        "limits": LIMITS,
        "seccomp": b"filter",
    }
    return container.configuration(**(fields | changed))  # type: ignore[arg-type] # one by one


@pytest.mark.parametrize(
    ("needed", "folder"),
    [
        ([], "/run"),
        (["/var/lib/lender", "/runner"], "/run"),
        (["/run/user/1000/lender"], "/mnt"),
        (["/run", "/mnt/disk", "/usr/bin/crun"], "/srv"),
        (["/run/a", "/mnt/a", "/srv/a", "/media/a", "/opt/a"], None),
    ],
)
def test_the_state_hides_nothing_that_is_needed(needed: list[str], folder: str | None) -> None:
    assert container.state_folder(needed) == folder


def test_everything_but_the_tasks_own_places_is_read_only() -> None:
    made = told(inputs={"in": "/blob"}, brought={"/dev/x": "/x"})
    mounts = {one["destination"]: one["options"] for one in made["mounts"]}  # type: ignore[attr-defined]
    assert {place for place, options in mounts.items() if "ro" in options} == {
        *("/proc", "/dev", "/dev/x", "/work/in")
    }
    assert {place for place, options in mounts.items() if "ro" not in options} == {
        *("/dev/shm", "/tmp", "/work")
    }
    assert all({"nosuid", "nodev"} <= set(options) for options in mounts.values())
    assert made["root"] == {"path": "/cache/root", "readonly": True}
    # A mount hides what was mounted below its place before it.
    places = list(mounts)
    assert places.index("/dev") < places.index("/dev/shm") < places.index("/dev/x")
    assert places.index("/work") < places.index("/work/in")


def test_the_filter_is_passed_on_as_it_is() -> None:
    annotations = told()["annotations"]
    assert isinstance(annotations, dict)
    (content,) = annotations.values()
    assert base64.b64decode(content) == b"filter"
    assert told(seccomp=None)["annotations"] == {}


def test_it_can_be_written_as_json_whatever_the_job_says() -> None:
    made = told(argv=["\udc80", '"'], env={"A": "\n\udcff"})
    assert json.loads(json.dumps(made)) == made

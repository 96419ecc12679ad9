"""What docs/security.md claims, a test or a decision shows: all that it names are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_every_test_that_it_names_is_there() -> None:
    text = "".join(PAGE.read_text().split())
    file = ""
    names = re.findall(r"`((?:[a-z]+/test_\w+\.py)?)((?:::test_\w+)?)`", text)
    assert len(names) > 25
    for path, name in names:
        file = path or file
        if not path and not name:
            continue
        content = (TESTS / file).read_text()
        assert not name or f"def {name[2:]}(" in content, f"{file}{name}"


def test_every_page_that_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target

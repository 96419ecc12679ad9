"""The README's table of attacks is true: each test is there, and each runtime that it names."""

import ast
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Row(NamedTuple):
    """One line of the table."""

    file: str
    name: str
    runtimes: tuple[str, ...]


def _rows() -> list[Row]:
    found = []
    for line in (FOLDER / "README.md").read_text().splitlines():
        if "`" not in line or not line.startswith("| "):
            continue
        _, _attack, test, runtimes, _ = (cell.strip() for cell in line.split("|"))
        file, name = test.strip("`").split("::")
        found.append(Row(file, name, tuple(sorted(filter(None, runtimes.split(", "))))))
    return found


def _tests(file: str) -> dict[str, tuple[str, ...]]:
    """The tests of a file, and the runtimes that they say they try."""
    found = {}
    for node in ast.parse((FOLDER / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "test_" in node.name[:5]:
            found[node.name] = tuple(
                sorted(
                    str(ast.literal_eval(argument))
                    for mark in node.decorator_list
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "tried_in"
                    for argument in mark.args
                )
            )
    return found


def test_the_table_names_what_is_there() -> None:
    for row in _rows():
        there = _tests(row.file)
        assert row.name in there, row
        assert there[row.name] == row.runtimes, row


def test_every_attack_is_in_the_table() -> None:
    named = {(row.file, row.name) for row in _rows()}
    for path in FOLDER.glob("test_attack_*.py"):
        if path.name != Path(__file__).name:
            assert {(path.name, name) for name in _tests(path.name)} <= named

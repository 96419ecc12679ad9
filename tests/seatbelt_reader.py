"""Reads a sandbox-exec command line as sandbox-exec would, to hold ours against.

Written from sandbox-exec(1) and from how Scheme writes strings; shares nothing with the code.
"""

import re
from typing import NamedTuple

_TOKEN = re.compile(r'\s*(?:([()])|"((?:[^"\\]|\\.)*)"|([^\s()";]+))', re.DOTALL)

Form = str | list["Form"]


class Line(NamedTuple):
    """A command line taken apart. A string of the profile keeps its quote in front."""

    program: str
    forms: list[list[Form]]
    parameters: dict[str, str]
    rest: list[str]

    def allows(self, operation: str, what: str = "") -> bool:
        """Whether the last rule that fits allows it."""
        answer = True  # some operations are allowed until they are denied
        for action, *words in self.forms:
            if action not in {"allow", "deny"}:
                continue
            names = [w for w in words if isinstance(w, str)]
            filters = [w for w in words if not isinstance(w, str)]
            named = "default" in names or any(_is_operation(n, operation) for n in names)
            if named and (not filters or any(self._fits(f, what) for f in filters)):
                answer = action == "allow"
        return answer

    def _fits(self, condition: Form, what: str) -> bool:
        assert isinstance(condition, list)
        kind, value = condition
        text = self._value(value)
        match kind:
            case "literal" | "sysctl-name":
                return what == text
            case "target":
                return what == value
            case "subpath":
                return what == text or what.startswith(f"{text}/")
            case "sysctl-name-prefix":
                return what.startswith(text)
            case "path-ancestors":
                return text.startswith(what.rstrip("/") + "/") and what != text
        raise AssertionError(f"an unknown filter: {condition}")

    def _value(self, value: Form) -> str:
        if isinstance(value, str):
            return value.removeprefix('"')
        assert value[0] == "param", value
        assert isinstance(value[1], str)
        return self.parameters[value[1].removeprefix('"')]


def read_line(words: list[str]) -> Line:
    """Take options until `--`, as getopt(3) does."""
    program, *left = words
    profile, parameters = "", {}
    while (option := left.pop(0)) != "--":
        value = left.pop(0)
        if option == "-p":
            profile = value
        else:
            assert option == "-D", option
            key, _, path = value.partition("=")
            assert key not in parameters
            parameters[key] = path
    return Line(program, read(profile), parameters, left)


def read(profile: str) -> list[list[Form]]:
    """All forms of a profile; fails on anything that is no list."""
    stack: list[list[Form]] = [[]]
    place = 0
    text = profile.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        assert token, f"unreadable: {text[place : place + 20]!r}"
        place = token.end()
        bracket, string, word = token.groups()
        if bracket == "(":
            stack.append([])
        elif bracket == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word if string is None else f'"{string}')
    assert len(stack) == 1, "a bracket is missing"
    forms = []
    for form in stack[0]:
        assert isinstance(form, list), f"a stray word: {form}"
        forms.append(form)
    return forms


def _is_operation(name: str, operation: str) -> bool:
    return name == operation or (name.endswith("*") and operation.startswith(name[:-1]))

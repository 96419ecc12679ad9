"""A policy of an overlay network, as Headscale and Tailscale read it: HuJSON, and what grants let
through. As much of both as deploy/headscale uses; what is not understood is refused.

https://tailscale.com/kb/1337/policy-syntax, https://github.com/tailscale/hujson
"""

import json
import re
from typing import Any

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*") | (?P<comment>//[^\n]*|/\*.*?\*/) | (?P<comma>,)
    | (?P<close>[\]}]) | (?P<space>\s+) | (?P<other>[^"/,\]}\s]+|/)""",
    re.VERBOSE | re.DOTALL,
)

_KNOWN = {"groups", "tagOwners", "grants", "tests"}


def read(text: str) -> dict[str, Any]:
    """JSON with comments and commas after the last member.

    Raises:
        ValueError: it is none, names something twice, or something that is not understood here.
    """
    kept, comma = [], ""
    for token in _TOKEN.finditer(text):
        if token["comment"] or token["space"]:
            continue
        if comma and (not token["close"] or kept[-1].endswith(("[", "{"))):
            kept.append(comma)
        comma = "," if token["comma"] else ""
        if not token["comma"]:
            kept.append(token[0])
    found: dict[str, Any] = json.loads(" ".join(kept), object_pairs_hook=_once)
    if unknown := found.keys() - _KNOWN - {"acls"}:
        raise ValueError(f"not understood here: {sorted(unknown)}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError(f"said twice: {sorted(name for name, _ in pairs)}")
    return made


def lets(policy: dict[str, Any], source: str, target: str, port: int) -> bool:
    """Whether TCP from `source` (a tag, or a user such as `alice@`) reaches a port of `target`.

    A policy without grants lets everything through.
    """
    if "grants" not in policy:
        return True
    return any(
        _is_any(policy, source, one["src"])
        and _is_any(policy, target, one["dst"])
        and any(_covers(ip, port) for ip in one["ip"])
        for one in policy["grants"]
    )


def failures(policy: dict[str, Any]) -> list[str]:
    """Those of the policy's own tests that it fails."""
    found = []
    for test in policy.get("tests", ()):
        for wanted, ends in ((True, test.get("accept", ())), (False, test.get("deny", ()))):
            for end in ends:
                target, _, port = end.rpartition(":")
                if lets(policy, test["src"], target, int(port)) is not wanted:
                    found.append(f"{test['src']} -> {end} {'refused' if wanted else 'passes'}")
    return found


def unknown_names(policy: dict[str, Any]) -> set[str]:
    """Tags and groups that are used, and said nowhere: a slip of the pen lets nobody in, or all."""
    said = {*policy.get("groups", {}), *policy.get("tagOwners", {}), "autogroup:member", "*"}
    used = {name for one in policy.get("grants", ()) for name in (*one["src"], *one["dst"])}
    used |= {name for owners in policy.get("tagOwners", {}).values() for name in owners}
    for test in policy.get("tests", ()):
        ends = (*test.get("accept", ()), *test.get("deny", ()))
        used |= {test["src"], *(end.rpartition(":")[0] for end in ends)}
    return {name for name in used - said if ":" in name}


def _is_any(policy: dict[str, Any], one: str, names: list[str]) -> bool:
    for name in names:
        if name in ("*", one):
            return True
        if name == "autogroup:member" and not one.startswith("tag:"):
            return True
        if name.startswith("group:") and one in policy["groups"][name]:
            return True
    return False


def _covers(ip: str, port: int) -> bool:
    protocol, _, ports = ip.rpartition(":")
    if protocol not in ("", "tcp"):
        return False
    if ports == "*":
        return True
    first, _, last = ports.partition("-")
    return int(first) <= port <= int(last or first)

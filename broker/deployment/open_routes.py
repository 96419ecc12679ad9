"""Finds servers of ours whose port of routes lets in whoever reaches it."""

import re
from collections.abc import Iterator
from pathlib import Path

from broker.deployment import contents, server_config
from broker.deployment.folder import Deployment

_PART = re.compile(
    r'"(?:\\.|[^"\\])*"|\'[^\']*\'|(?:#|(?<!:)//)[^\n]*|[{}\[\]]|[^\s{}\[\]"\'#=:,;]+|\S'
)
"""A string, a comment, a bracket, a word: what a NATS server's file is made of."""


def open_routes(deployment: Deployment) -> list[Path]:
    """Return the files of servers that take anybody for a server of their cluster.

    What an operator added in another file, or says as the server starts, is not seen.
    """
    files = [deployment.folder / contents.SERVER_FILE]
    files += sorted(deployment.folder.glob(f"{contents.CLUSTER_FOLDER}/*/{server_config.FILE}"))
    return [path for path in files if path.is_file() and is_open(path.read_text(errors="replace"))]


def warning(where: str) -> str:
    """Return what to tell an operator of a server, or of its file, that is open."""
    return (
        f"WARNING: {where} has routes without TLS: whoever reaches that port joins as a server, "
        "and reads and\n  writes everything, whatever tokens say. Close the port to all but the "
        "servers now; then take the block\n  `cluster` out, and use the folders that "
        "`lender-broker init --cluster HOST HOST HOST` makes\n  (docs/deployment.md, "
        '"Upgrading")'
    )


def is_open(config: str) -> bool:
    """Tell whether a server's configuration has routes without TLS by a named authority.

    Where there is TLS for routes, a server asks the others for their certificates, whatever
    `verify` says; without `ca_file`, one of any public authority is enough.
    """
    blocks = list(_blocks(config))
    tls = [words for path, words in blocks if path == ("cluster", "tls")]
    return any(path == ("cluster",) for path, _ in blocks) and not any(
        "ca_file" in words for words in tls
    )


def _blocks(config: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Each block by the names that lead to it, with the words right in it."""
    path: list[str] = []
    words: list[list[str]] = [[]]
    for match in _PART.finditer(config):
        part = match[0]
        if part == "{":
            path.append(next((one for one in reversed(words[-1]) if one not in ":="), ""))
            words.append([])
        elif part == "}" and path:
            yield tuple(path), words.pop()
            path.pop()
        elif not part.startswith(("#", "//")):
            words[-1].append(part.strip("\"'").lower())

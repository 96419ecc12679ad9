"""List the kinds of work that can be granted by name, or with a NAME all that is known of one.

A workload of yours needs no change to the product: a folder of its name with a workload.toml, and
with its module if it has one (workloads/README.md has the format), below
~/.config/lender/workloads, or below any folder that --catalogue names. The product's own names
can't be taken by it.

Such a folder lets nobody run anything. On a machine that lends its owner puts a copy below a folder
that lenderd.toml names (added_workloads = ["DIR"]), and grants the workload; with its module's
digest, where it has one: whoever changes the module has to ask again.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from shlex import quote
from typing import Any

from lender.cli.catalogue_choice import add_catalogue_option, chosen
from lender.cli.exits import CommandError, Exit
from lender.cli.owner import print_json
from lender.cli.words import complain, count, duration, printable, say, size
from lender.client.arguments import is_optional, plain
from lender.client.catalogue import Catalogue
from lender.client.workload import CatalogueError, Workload
from lender.protocol.strangers_text import visible
from lender.service.workload_folders import own_workloads

EXAMPLES = """\
  lender workloads
  lender workloads checksum
  lender workloads --catalogue ./workloads --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="this one alone, in more words")
    add_catalogue_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what can be used; what can't is complained of, and makes it fail."""
    catalogue = chosen(args.catalogue)
    try:
        found, faults = catalogue.survey() if args.name is None else _one(catalogue, args.name)
    except CatalogueError as error:
        raise CommandError(Exit.FAILED, visible(str(error))) from error
    if args.json:
        print_json("workloads", {"workloads": [_fields(one, catalogue) for one in found]})
    else:
        say(_table(found, catalogue) if args.name is None else _in_words(found[0], catalogue))
    complain(*(visible(f"lender workloads: {fault}") for fault in faults))
    return Exit.FAILED if faults else Exit.DONE


def _one(catalogue: Catalogue, name: str) -> tuple[list[Workload], list[CatalogueError]]:
    found = catalogue.find(name)
    if found is None:
        raise CommandError(Exit.FAILED, f"no workload {name!r} is known here; see lender workloads")
    return [found], []


def _place(workload: Workload, catalogue: Catalogue) -> str:
    """Where it is described; empty for the product's own."""
    ours = workload.folder.parent == catalogue.product
    return "" if ours else str(workload.folder.absolute())


def _table(workloads: Iterable[Workload], catalogue: Catalogue) -> Iterator[str]:
    rows = [("NAME", "RUNTIME", "DIGEST", "TITLE", "")]
    for one in workloads:
        digest = (one.sha256 or "-")[:12]
        rows.append((one.name, one.runtime, digest, one.title, _place(one, catalogue)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield printable("  ".join(cells).rstrip())


def _in_words(workload: Workload, catalogue: Catalogue) -> Iterator[str]:
    limits, place = workload.limits, _place(workload, catalogue)
    yield printable(f"{workload.name}: {workload.title}")
    program = f"the program sha256:{workload.sha256}" if workload.sha256 else "whatever comes along"
    yield f"  {'runs':<10} {program}, by {workload.runtime}"
    if workload.command:
        yield printable(f"  {'command':<10} {' '.join(workload.command)}")
    yield f"  {'from':<10} {printable(place) or 'the product'}"
    for what in ("arguments", "inputs", "outputs"):
        yield from _explained(what, getattr(workload, what))
    yield (
        f"  {'limits':<10} {count(limits.cpu, 'core')}, {size(limits.memory_bytes)} of memory, "
        f"{duration(limits.time_s)}, {size(limits.output_bytes)} of value, "
        f"{size(limits.scratch_bytes)} of files"
    )
    if needs := [*_needs(workload)]:
        yield f"  {'needs':<10} {', '.join(needs)}"
    yield printable(f"  {'submit':<10} {_submitted(workload, place)}")
    yield f"  {'grant':<10} lender grant SUBMITTER {_granted(workload)} --expires 30d"


def _needs(workload: Workload) -> Iterator[str]:
    needs = workload.requires
    yield from (one for one in (needs.os, needs.arch) if one != "any")
    if needs.gpu != "none":
        yield f"a GPU ({needs.gpu}) with {size(needs.vram_bytes)} of its memory"


def _explained(what: str, meanings: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, meanings), default=0)
    for name, meaning in meanings.items():
        yield printable(f"  {what:<10} {name:<{width}}  {meaning}")
        what = ""


def _submitted(workload: Workload, place: str) -> str:
    """How to submit one; with its folder where it would not be found otherwise."""
    name = workload.name
    match workload.runtime:
        case "python":
            return f'from Python: client.submit_function(f, workload="{name}")'
        case "oci":
            return "by a client of the wire's: see docs/protocol.md"
    words = ["lender submit", f"--workload {name}"]
    if place and own_workloads() != workload.folder.parent:
        words.append(f"--catalogue {quote(str(workload.folder.parent.absolute()))}")
    if workload.runtime == "wasm" and workload.entry is None:
        words.append("--wasm MODULE")
    words += [
        f"--in {one}" if one in plain(workload.arguments) else f"--in FILE={one}"
        for one in workload.inputs
        if not is_optional(one)
    ]
    return " ".join([*words, *(["--", *workload.arguments] if workload.arguments else [])])


def _granted(workload: Workload) -> str:
    """What an owner agrees to who grants just this: the program, and what a task takes."""
    limits, needs = workload.limits, workload.requires
    name = f"{workload.name}@{workload.sha256}" if workload.sha256 else workload.name
    words = f"--workload {name} --cpu {limits.cpu} --mem {_mebibytes(limits.memory_bytes)}"
    if needs.gpu == "none":
        return words
    return f"{words} --gpu --vram {_mebibytes(max(needs.vram_bytes, 1))}"


def _mebibytes(count: int) -> str:
    """No less than so many bytes, as options take it."""
    return f"{-(-count >> 20)}M"


def _fields(workload: Workload, catalogue: Catalogue) -> dict[str, Any]:
    return {
        **workload.model_dump(exclude={"limits", "requires"}),
        "requires": workload.requires.model_dump(),
        "limits": workload.limits.model_dump(),
        "module": str(workload.module.absolute()) if workload.module else None,
        "folder": _place(workload, catalogue) or None,
        "submit": _submitted(workload, _place(workload, catalogue)),
        "grant": _granted(workload),
    }

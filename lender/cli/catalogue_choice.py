"""The catalogue that a verb means: the product's, this user's, --catalogue's; and jobs by it."""

import argparse
from pathlib import Path

from lender.cli.exits import CommandError, Exit
from lender.cli.words import complain
from lender.client import Catalogue, CatalogueError, JobRequest
from lender.client.filling import filled
from lender.protocol.strangers_text import visible


def add_catalogue_option(parser: argparse._ActionsContainer) -> None:
    """Add --catalogue."""
    parser.add_argument(
        "--catalogue",
        type=Path,
        metavar="DIR",
        help="workloads of yours, a folder for each, beside ~/.config/lender/workloads",
    )


def chosen(folder: Path | None) -> Catalogue:
    """Return the catalogue, with `folder` in it where one is named.

    Raises:
        CommandError: that is no folder of workloads.
    """
    try:
        return Catalogue.of_user(folder)
    except CatalogueError as error:
        raise CommandError(Exit.USAGE, visible(str(error))) from error


def described(request: JobRequest, catalogue: Catalogue) -> JobRequest:
    """Return the request with what its workload's description says; a note tells of one unknown.

    Raises:
        Rejected: it is no job of that workload.
        CatalogueError: the description can't be used.
    """
    if request.workload is None:
        return request
    workload = catalogue.find(request.workload)
    if workload is not None:
        return filled(request, workload)
    complain(
        f"lender: no workload {request.workload!r} is known here (lender workloads): sent as it is"
    )
    return request

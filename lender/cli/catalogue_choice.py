"""Which catalogue a verb means: the product's, this user's, and what --catalogue names."""

import argparse
from pathlib import Path

from lender.cli.exits import CommandError, Exit
from lender.client.catalogue import Catalogue
from lender.client.workload import CatalogueError


def add_catalogue_option(parser: argparse.ArgumentParser) -> None:
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
        raise CommandError(Exit.USAGE, str(error)) from error

"""Where descriptions of workloads lie. Standard library only: the owner's verbs ask here."""

import os.path
from pathlib import Path

from lender.service.places import NoHomeError, configuration_home


def installed_workloads() -> Path:
    """Return where the catalogue that comes with our own package lies, if it was installed."""
    return Path(__file__).resolve().parents[2] / "workloads"


def own_workloads() -> Path | None:
    """Return where this user's own workloads lie, if there are any: a folder for each."""
    try:
        found = Path(configuration_home(), "lender", "workloads")
    except NoHomeError:
        return None
    # Who became another user may not even look: then there is none, too.
    return found if os.path.isdir(found) else None  # noqa: PTH112 - Path.is_dir raises then

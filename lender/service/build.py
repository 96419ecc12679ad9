"""From which revision of its source this program was built, where who installed it wrote that down.

Standard library only.
"""

import json
import re
from pathlib import Path

REVISION_PATTERN = r"[0-9a-f]{40}([0-9a-f]{24})?"
_BYTES_MAX = 1 << 16


def revision(packages: Path | None = None) -> str | None:
    """Return the revision; None: it is not told, as of a wheel or of a working copy.

    pip leaves it beside a package that it built from a repository, and so does our build by Nix
    (PEP 610, `direct_url.json`).

    Args:
        packages: where distributions are installed; None: where this very program is.
    """
    place = Path(__file__).resolve().parents[2] if packages is None else packages
    for path in sorted(place.glob("lender-*.dist-info/direct_url.json")):
        try:
            with path.open("rb") as file:
                known = json.loads(file.read(_BYTES_MAX))["vcs_info"]["commit_id"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        if isinstance(known, str) and re.fullmatch(REVISION_PATTERN, known):
            return known
    return None

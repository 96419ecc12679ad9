"""Entry point of `lenderd`."""

from typing import NoReturn

from lender.service import program


def command() -> NoReturn:
    """Run as `lender.daemon.main` says, and end the process."""
    with program.loading():
        from lender.daemon.main import main  # noqa: PLC0415 - here it costs less
    program.end(main())

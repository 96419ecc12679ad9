"""Entry point of `lender-broker`."""

from typing import NoReturn

from lender.service import program


def command() -> NoReturn:
    """Run as `broker.service.main` says, and end the process."""
    with program.loading():
        from broker.service.main import main  # noqa: PLC0415 - here it costs less
    program.end(main())

"""The file that a NATS server lets us in by: a key, a signed identity, or a name and a password.

And the file that it shows by whom it is itself: certificates of authorities.
"""

# ssl looks for it where a name is checked, and by then root may have become a user who can't read
# where this interpreter is installed.
import encodings.idna  # noqa: F401
import os
import re
import ssl
from pathlib import Path
from typing import Any, Final

from lender.link.errors import LinkError

_BYTES_MAX: Final = 64 * 1024
_SEED: Final = re.compile(r"SU[A-Z2-7]{56}")
_NAME_AND_PASSWORD: Final = re.compile(r"([^\s:]+):(\S+)")
JWT_LINE: Final = "-----BEGIN NATS USER JWT-----"
SEED_LINE: Final = "-----BEGIN USER NKEY SEED-----"
"""Lines of a file of credentials, below which the token and its key's seed stand."""
_IN_ADDRESS: Final = re.compile(r"[^/,\s]*@")
_FORMS: Final = (
    "it takes an nkey seed (SU...), a .creds file as `nsc` writes them, or one line user:password"
)


class CredentialsError(LinkError):
    """The file can't be used; says how to mend it, and nothing of what stands in it."""


def connect_options(path: Path) -> dict[str, Any]:
    """Return what nats-py is to be told of a file with credentials.

    Keys are read anew at each reconnect, so that a file may be replaced; a password is not.

    Raises:
        CredentialsError: there is none, others than its owner and group can read it, or it holds
            something else.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_BYTES_MAX).decode("ascii")
    except OSError as error:
        raise CredentialsError(f"can't read the credentials {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} holds no credentials: {_FORMS}") from None
    if mode & 0o027:
        raise CredentialsError(
            f"others can read or change the credentials {path}: close it with `chmod 600 {path}`"
        )
    if JWT_LINE in text and SEED_LINE in text:
        return {"user_credentials": str(path)}
    if _SEED.fullmatch(text.strip()):
        return {"nkeys_seed": str(path)}
    if said := _NAME_AND_PASSWORD.fullmatch(text.strip()):
        return {"user": said[1], "password": said[2]}
    raise CredentialsError(f"{path} holds no credentials: {_FORMS}")


def credentials(token: str, seed: bytes) -> str:
    """Return the content of a file of credentials, as NATS clients read it."""
    return (
        f"{JWT_LINE}\n{token}\n------END NATS USER JWT------\n\n"
        f"{SEED_LINE}\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )


def part_of(text: str, line: str) -> str:
    """Return what stands below `JWT_LINE` or `SEED_LINE` in a file of credentials.

    Raises:
        IndexError: there is no such line.
    """
    return text.split(line)[1].partition("------END")[0].strip()


def trusting(authorities: Path) -> ssl.SSLContext:
    """Return what has a connection use TLS, with a server that these authorities vouch for.

    Args:
        authorities: certificates in PEM; those of the machine do not count then.

    Raises:
        CredentialsError: the file can't be used.
    """
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except ssl.SSLError as error:
        raise CredentialsError(f"{authorities} holds no certificates in PEM") from error
    except OSError as error:
        raise CredentialsError(
            f"can't read the certificates {authorities}: {error.strerror}"
        ) from error


def without_credentials(url: str) -> str:
    """Return the addresses of servers as others may see them: no name or password in them."""
    return _IN_ADDRESS.sub("", url)

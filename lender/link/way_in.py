"""What a file of credentials says of whoever holds it: read for a look, and told to nobody."""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lender.link.credentials import JWT_LINE, SEED_LINE, CredentialsError, connect_options, part_of
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer

_TAGS_MAX = 4096


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Named(_Claims):
    """The part of a token that is NATS's own."""

    tags: tuple[str, ...] = Field((), max_length=_TAGS_MAX)


class Token(_Claims):
    """What somebody vouches for, as far as it matters to its holder (JWT, RFC 7519)."""

    sub: str
    iss: str
    name: str = ""
    iat: float = 0.0
    exp: float | None = None
    nats: Named = Named()


class WayIn(NamedTuple):
    """How a server is told who we are."""

    public_key: str | None
    """None: by a name and a password."""
    token: Token | None
    introduce: Callable[[str], dict[str, Any]]
    """Returns fields of `CONNECT` that answer a server's nonce."""


def read_way_in(path: Path) -> WayIn:
    """Read a file with credentials; see `connect_options` for what one holds.

    Raises:
        CredentialsError: it can't be used.
    """
    options = connect_options(path)
    if "user" in options:
        said = {"user": options["user"], "pass": options["password"]}
        return WayIn(None, None, lambda _: said)
    try:
        text = path.read_text("ascii")
        if "nkeys_seed" in options:
            signer = Signer(text.strip().encode())
            known = {"nkey": signer.public_key}
            token = None
        else:
            encoded = part_of(text, JWT_LINE)
            signer = Signer(part_of(text, SEED_LINE).encode())
            known = {"jwt": encoded}
            token = token_of(encoded)
    except OSError as error:
        raise CredentialsError(f"can't read the credentials {path}: {error.strerror}") from error
    except (ProtocolError, ValueError, IndexError) as error:
        mend = "have them made anew, or restore the file"
        raise CredentialsError(f"the credentials {path} are damaged: {mend}") from error
    return WayIn(
        signer.public_key, token, lambda nonce: {**known, "sig": signer.sign(nonce.encode())}
    )


def token_of(text: str) -> Token:
    """Return what a token says; whether its issuer has signed it is for the server to tell.

    Raises:
        ValueError: it is none.
    """
    try:
        body = text.split(".")[1]
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        return Token.model_validate_json(raw)
    except (binascii.Error, ValidationError, IndexError) as error:
        raise ValueError("not a token") from error

"""The submitter's private key on disk: an nkey seed in a file that only its owner can read."""

import os
from collections.abc import Mapping
from pathlib import Path

from lender.client.errors import KeyFault
from lender.protocol.errors import ProtocolError
from lender.protocol.signature import Signer, seed_from_entropy
from lender.service.places import check_private, make_folder

ENTROPY_BYTES = 32
_SEED_CHARS_MAX = 4096


def default_key_path(environment: Mapping[str, str]) -> Path:
    """Return `$LENDER_KEY`, or `lender/submitter.nk` in the XDG configuration folder.

    Raises:
        KeyFault: this user has no home folder.
    """
    if chosen := environment.get("LENDER_KEY"):
        return Path(chosen)
    configuration = environment.get("XDG_CONFIG_HOME")
    try:
        base = Path(configuration) if configuration else Path.home() / ".config"
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        raise KeyFault("this user has no home folder", "set HOME, or $LENDER_KEY") from None
    return base / "lender" / "submitter.nk"


def named_path(environment: Mapping[str, str], variable: str) -> Path | None:
    """Return the file that a variable of the environment names; None where it names none."""
    chosen = environment.get(variable)
    return Path(chosen) if chosen else None


def read_trusted(path: Path) -> tuple[str, ...]:
    """Read which lenders a submitter trusts: a public key a line, and after it what you like.

    Lines that are empty or begin with `#` say nothing.

    Raises:
        KeyFault: it can't be read.
    """
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise KeyFault(f"can't read {path}: {error.strerror}", "name another file") from error
    words = (line.split() for line in lines)
    return tuple(said[0] for said in words if said and not said[0].startswith("#"))


def create_key(path: Path, entropy: bytes) -> Signer:
    """Write a new key with mode 0600, durably, and return it.

    Args:
        path: where to; missing folders are made with mode 0700.
        entropy: 32 random bytes.

    Raises:
        KeyFault: the file exists (a key is never overwritten) or can't be written.
    """
    seed = seed_from_entropy(entropy)
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            try:
                check_private(descriptor)
            except OSError:
                path.unlink()
                raise
            file.write(seed + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise KeyFault(
            f"{path} exists and is not overwritten",
            "use it as it is, or choose another file with --key",
        ) from None
    except OSError as error:
        raise KeyFault(f"can't write {path}: {error.strerror}", "choose another --key") from error
    return Signer(seed)


def read_key(path: Path) -> Signer:
    """Read a key.

    Raises:
        KeyFault: there is none, it is no nkey seed, or others than its owner can read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            seed = file.read(_SEED_CHARS_MAX)
    except FileNotFoundError:
        raise KeyFault(f"no key at {path}", "make one with `lender keygen`") from None
    except OSError as error:
        raise KeyFault(f"can't read {path}: {error.strerror}", "choose another --key") from error
    if mode & 0o077:
        raise KeyFault(f"others can read the key {path}", f"close it with `chmod 600 {path}`")
    try:
        return Signer(seed)
    except ProtocolError as error:
        raise KeyFault(f"{path} holds no submitter's key", error.reason) from error

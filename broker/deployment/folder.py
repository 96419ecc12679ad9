"""A deployment's folder: written whole or not at all, read where it is used."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.deployment import claims, contents, server_config
from broker.deployment.contents import Identities
from broker.deployment.tokens import Key, TokenError, decode
from lender.protocol.permissions import HOME, Account, Role
from lender.service.places import check_private, make_folder


class DeploymentError(Exception):
    """The folder can't be made or used; says how to mend it."""


class Deployment:
    """What `lender-broker init` has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return (self.folder / contents.ACCOUNTS_FILE).is_file()

    @property
    def broker_credentials(self) -> Path:
        """What lets the broker in."""
        return self.folder / contents.BROKER_CREDENTIALS

    @property
    def authority(self) -> Path | None:
        """Certificates of who vouches for the server; None where its certificate was given."""
        path = self.folder / contents.AUTHORITY
        return path if path.exists() else None

    def authorities(self) -> str:
        """Return those certificates, as they stand now; empty where the server's was given.

        Raises:
            DeploymentError: they can't be read.
        """
        return "" if self.authority is None else self.read(contents.AUTHORITY)

    @property
    def system_credentials(self) -> Path:
        """What lets the operator speak with the server itself."""
        return self.folder / contents.SYSTEM_CREDENTIALS

    def write(self, files: Mapping[str, str]) -> None:
        """Write all of a new deployment.

        Raises:
            DeploymentError: there is something already, or it can't be written.
        """
        draft = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}")
        try:
            make_folder(self.folder.parent)
            draft.mkdir(mode=0o700)
            try:
                for path, text in files.items():
                    _write(draft / path, text)
                draft.rename(self.folder)  # refused where there is something in it
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        except OSError as error:
            raise DeploymentError(
                f"can't make {self.folder}: {error.strerror}; name another by --deployment"
            ) from error

    def replace(self, files: Mapping[str, str]) -> None:
        """Write files anew, each whole or not at all.

        Raises:
            DeploymentError: one can't be written.
        """
        for path, text in files.items():
            target = self.folder / path
            draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            try:
                _write(draft, text)
                draft.replace(target)
            except OSError as error:
                draft.unlink(missing_ok=True)
                raise DeploymentError(f"can't write {target}: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change what is signed meanwhile.

        Raises:
            DeploymentError: somebody does so now, or there is no deployment.
        """
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise DeploymentError(
                f"no deployment at {self.folder}: {error.strerror}; name it by --deployment"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise DeploymentError(
                "another command of the operator's changes this deployment now: let it end, "
                "and do this again"
            ) from error
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> None:
        """Remove a file that is needed no more.

        Raises:
            DeploymentError: it can't be removed.
        """
        try:
            (self.folder / path).unlink(missing_ok=True)
        except OSError as error:
            raise DeploymentError(f"can't remove {self.folder / path}: {error.strerror}") from error

    def accounts_files(self) -> list[str]:
        """Return where the accounts stand for servers: each of a cluster has its copy."""
        copies = self.folder.glob(f"{contents.CLUSTER_FOLDER}/*/{server_config.ACCOUNTS}")
        return [contents.ACCOUNTS_FILE, *(str(one.relative_to(self.folder)) for one in copies)]

    def embedded_config(self, store: Path) -> str:
        """Return what the embedded server is told, so that it lets in only whom we vouch for."""
        return self.read(contents.ACCOUNTS_FILE) + server_config.resolver_config(store / "accounts")

    def tokens(self) -> dict[str, str]:
        """Return the tokens of the operator, of all accounts and of strangers, by name."""
        names = ("operator", "system", *claims.ACCOUNTS, contents.SENTINEL)
        return {name: self.read(contents.token_file(name)).strip() for name in names}

    def said(self) -> dict[str, dict[str, Any]]:
        """Return what the tokens say, by name.

        Raises:
            DeploymentError: they can't be read.
        """
        try:
            return {name: decode(token) for name, token in self.tokens().items()}
        except TokenError as error:
            raise self._damaged(error) from error

    def identities(self) -> Identities:
        """Return what the tokens are about; of a role's keys the one that signs.

        Raises:
            DeploymentError: they can't be read.
        """
        said = self.said()
        try:
            signing = {
                one["role"]: one["key"]
                for name in claims.ACCOUNTS
                for one in said[name]["nats"]["signing_keys"]
            }
            accounts: dict[Account, str] = {name: said[name]["sub"] for name in claims.ACCOUNTS}
            return Identities(said["system"]["sub"], accounts, signing)
        except (KeyError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DeploymentError:
        return DeploymentError(
            f"the tokens in {self.folder / 'server'} can't be used ({error}); restore them"
        )

    def key(self, path: str) -> Key:
        """Return a private key.

        Raises:
            DeploymentError: it is not there, it is none, or others can read or change it.
        """
        self._check_kept(path)
        try:
            return Key(self.read(path).encode())
        except TokenError as error:
            raise DeploymentError(f"{self.folder / path}: {error}; restore it") from error

    def _check_kept(self, path: str) -> None:
        """See that a key is its owner's alone, or a group's, too: Kubernetes mounts it so."""
        place = self.folder / path
        with contextlib.suppress(OSError):  # that is said where it is read
            if place.stat().st_mode & 0o027:
                raise DeploymentError(
                    f"others can read or change the key {place}: who it vouches for may be "
                    f"anybody's choice by now. chmod 600 {place}, and lender-broker rotate"
                )

    def vouch(
        self, role: Role, public_key: str, name: str, tags: tuple[str, ...], now: float
    ) -> str:
        """Return the token that lets a key in as one of a role; see `contents.user_token`.

        Raises:
            DeploymentError: the role's signing key is not here.
        """
        signing_key = self.key(contents.signing_key_file(role))
        account = decode(self.read(contents.token_file(HOME[role])).strip())["sub"]
        accounts = {HOME[role]: account}
        return contents.user_token(public_key, name, role, signing_key, accounts, tags, now)

    def read(self, path: str) -> str:
        """Return a file's content.

        Raises:
            DeploymentError: it can't be read.
        """
        try:
            return (self.folder / path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no text"
            raise DeploymentError(
                f"can't read {self.folder / path}: {reason}; restore it, or name the deployment's "
                "folder by --deployment"
            ) from error


def _write(path: Path, text: str) -> None:
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        check_private(descriptor)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

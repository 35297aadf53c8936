"""The key that backups are encrypted to: an age identity that a password guards, and its public key beside it.

The public ``age`` tool opens what is encrypted to it, and its own files open with this key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vectorstore.errors import ConfigurationError, KeyRefused

if TYPE_CHECKING:
    from pyrage.x25519 import Identity, Recipient

PASSWORD = "VECTORKEEP_BACKUP_PASSWORD"  # the environment's name for it: a password is no setting
SHORTEST_PASSWORD = 8  # characters
_LARGEST_KEY = 1 << 16
_SECRET = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.ASCII)


def make_key(path: Path, password: str) -> str:
    """Make an identity, guarded by the password, and beside it ``.pub`` with its public key.

    A call that was killed between the two files is ended by the next, with the same password.

    Returns:
        The public key.

    Raises:
        ConfigurationError: the password is too short, or there is a key already.
        KeyRefused: a killed call left its key, and the password is not that one's.
    """
    from pyrage import passphrase, x25519

    if len(password) < SHORTEST_PASSWORD:
        raise ConfigurationError(f"the password is shorter than {SHORTEST_PASSWORD} characters")
    public_path = path.with_suffix(".pub")
    if public_path.exists():
        raise ConfigurationError(f"there is a key already: {public_path}", "keep it: it opens the backups made with it")
    if path.exists():
        public = str(open_key(path, password).to_public())
    else:
        identity = x25519.Identity.generate()
        public = str(identity.to_public())
        _create(path, passphrase.encrypt(f"# public key: {public}\n{identity}\n".encode(), password))
    _create(public_path, f"{public}\n".encode())  # last: nothing is ever encrypted to a key that is not kept
    return public


def public_key(path: Path) -> str:
    """The public key beside the identity at ``path``.

    Raises:
        KeyRefused: there is none.
    """
    public_path = path.with_suffix(".pub")
    try:
        found = public_path.read_bytes()[:_LARGEST_KEY].decode("ascii", "replace").strip()
    except FileNotFoundError as error:
        raise KeyRefused(f"there is no public key at {public_path}", "make one: vectorkeep keygen") from error
    recipients_of([found])
    return found


def open_key(path: Path, password: str) -> Identity:
    """The identity that the password opens. It takes about a second and, for that second, 512 MB: so scrypt guards it.

    Raises:
        KeyRefused: there is no key, it is damaged, or the password is not its own; the same words for the last two.
    """
    from pyrage import DecryptError, IdentityError, passphrase, x25519

    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_KEY)
    except FileNotFoundError as error:
        raise KeyRefused(f"there is no key at {path}", "copy it there from where you keep it safe") from error
    try:
        lines = passphrase.decrypt(data, password).decode().splitlines()
        (secret,) = (line for line in lines if _SECRET.fullmatch(line.strip()))
        return x25519.Identity.from_str(secret.strip())
    except (DecryptError, IdentityError, ValueError) as error:
        raise KeyRefused(f"the password does not open {path.name}") from error


def recipients_of(keys: Sequence[str]) -> list[Recipient]:
    """Public keys as pyrage takes them.

    Raises:
        KeyRefused: one is no public key.
    """
    from pyrage import RecipientError, x25519

    try:
        return [x25519.Recipient.from_str(key) for key in keys]
    except RecipientError as error:
        raise KeyRefused(f"this is no public age key: {error}") from error


def _create(path: Path, data: bytes) -> None:
    """A new file, whole or not there; never in place of another."""
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with suppress(FileNotFoundError):
        partial.unlink()
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.link(partial, path)
    except FileExistsError as error:
        raise ConfigurationError(f"there is a key already: {path}") from error
    finally:
        partial.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

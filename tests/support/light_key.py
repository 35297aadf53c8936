"""A key whose password is checked in a moment: pyrage's own take a second or two, each time that they are opened."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyrage import x25519

WORK = 4  # the binary logarithm of scrypt's work; pyrage takes 17 or more


def guarded(clear: bytes, password: str) -> bytes:
    """A file as ``age --passphrase`` makes it, of up to 64 kB."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(
        password.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=1 << WORK, r=8, p=1, dklen=32
    )
    body = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %s %d\n%s\n---" % (_text(salt), WORK, _text(body))
    mark = hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")
    chunk = ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\1", clear, None)
    return b"%s %s\n%s%s" % (header, _text(mark), nonce, chunk)


def make_light_key(path: Path, password: str) -> str:
    """What ``make_key`` makes: the identity, and beside it its public key, which is returned."""
    identity = x25519.Identity.generate()
    public = str(identity.to_public())
    path.write_bytes(guarded(f"# public key: {public}\n{identity}\n".encode(), password))
    path.chmod(0o600)
    path.with_suffix(".pub").write_text(f"{public}\n")
    return public


def _derived(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, purpose).derive(key)


def _text(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")

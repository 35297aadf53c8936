"""Every error Vectorkeep raises on purpose.

::

    VectorkeepError                 exit 1
    ├── ConfigurationError          exit 2   settings, arguments, unknown price
    │   ├── KeyRejected                      the provider does not accept the key
    │   ├── StoreUnreachable                 a Chroma server that does not answer
    │   ├── NoBackup                         no backup of that name
    │   └── KeyRefused                       the key or password of an encrypted backup is missing or wrong
    ├── Capped                      exit 3   a spending cap was reached; resumable
    ├── Locked                      exit 4   another run holds the writer's lock
    ├── Refused                     exit 5   a safety guard said no; names the flag that would allow it
    │   ├── EmptySource
    │   ├── TooManyDeletes
    │   └── PipelineMismatch
    ├── Damaged                     exit 6   a ledger, cache or store that does not verify
    ├── BadBackup                   exit 6   a backup that does not verify
    ├── EmbeddingFailed             exit 1   the provider failed for good; nothing paid is lost
    │   └── QuotaExhausted
    ├── DocumentError               exit 1   one document can't be read or embedded; the others go on
    └── Interrupted                 exit 130 SIGINT or SIGTERM, stopped at a batch's end

All survive pickling: what the constructor takes is what ``args`` holds.
"""

from __future__ import annotations

from typing import ClassVar

from vectorstore.redaction import redacted


class VectorkeepError(Exception):
    """Base of the tree: what went wrong, and in ``hint`` the next step for a person; neither holds a secret."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = redacted(message), redacted(hint)
        super().__init__(self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class ConfigurationError(VectorkeepError):
    """A setting, an argument or the environment is wrong; nothing was touched."""

    exit_code = 2


class KeyRejected(ConfigurationError):
    """The provider answered 401 or 403: every further request would fail as well."""


class StoreUnreachable(ConfigurationError):
    """A Chroma server does not answer at its address."""


class NoBackup(ConfigurationError):
    """There is no backup of that name."""


class KeyRefused(ConfigurationError):
    """The key or the password that an encrypted backup needs is missing or wrong; nothing was touched."""


class Capped(VectorkeepError):
    """The next request could pass a spending cap, so it was not sent."""

    exit_code = 3


class Locked(VectorkeepError):
    """Another process is writing to this workspace or store."""

    exit_code = 4


class Refused(VectorkeepError):
    """A safety guard stopped the run before anything was changed."""

    exit_code = 5


class EmptySource(Refused):
    """The source root is missing, empty or unreadable while the ledger knows documents."""


class TooManyDeletes(Refused):
    """The plan would delete more documents than the guard allows."""


class PipelineMismatch(Refused):
    """The store holds vectors of another model, dimension or chunker."""


class Damaged(VectorkeepError):
    """A ledger, cache or store does not verify and can't be mended without a person."""

    exit_code = 6


class BadBackup(VectorkeepError):
    """A backup does not verify: nothing of it is used."""

    exit_code = 6


class EmbeddingFailed(VectorkeepError):
    """The provider kept failing after all retries; what was paid is in the cache."""


class QuotaExhausted(EmbeddingFailed):
    """The provider's account has no quota left: waiting will not help."""


class Interrupted(VectorkeepError):
    """A signal asked the run to stop; it stopped at the end of a batch."""

    exit_code = 130


class DocumentError(VectorkeepError):
    """One document can't be read, cut or embedded.

    Args:
        doc_key: the document, or the folder (with a trailing slash) that can't be listed.
        reason: one line for a person.
    """

    def __init__(self, doc_key: str, reason: str) -> None:
        self.doc_key, self.reason = doc_key, redacted(reason)
        Exception.__init__(self, doc_key, self.reason)
        self.message = f"{doc_key!r}: {self.reason}"
        self.hint = ""


def unforeseen(error: Exception) -> VectorkeepError:
    """What a library or the disk raised, for a person; raise it ``from`` the error."""
    return VectorkeepError(
        f"stopped by {type(error).__name__}: {error}",
        "see that the disk is not full and that its folders can be written, then run again: nothing paid is lost",
    )

"""Streams that encrypt and decrypt with age, in little memory: pyrage runs in a thread, at the other end of a pipe."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from vectorstore.backups.encryption import recipients_of
from vectorstore.errors import BadBackup, KeyRefused

if TYPE_CHECKING:
    from pyrage.x25519 import Identity

MAGIC = b"age-encryption.org/v1\n"


class Reader(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


class Writer(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""


class Encrypting:
    """A stream that encrypts to public keys what is written to it.

    What fails in the thread is raised by the next ``write``, or by ``close``. Nothing is a whole age file before
    ``close`` has returned.
    """

    def __init__(self, out: Writer, recipients: Sequence[str]) -> None:
        import pyrage

        keys = recipients_of(recipients)
        self._out, self._error, self._ended = out, _Kept(), False
        self._from, self._to = os.pipe()
        self._thread = threading.Thread(
            target=self._error.run, args=(lambda: pyrage.encrypt_io(self, _Guarded(out, self._error), keys), self._from)
        )
        self._thread.daemon = True
        self._thread.start()

    def write(self, data: bytes) -> int:
        """Encrypt bytes."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._to, rest) :]
        except BrokenPipeError:
            self.abort()
            self._error.raise_it()
            raise
        return len(data)

    def read(self, size: int) -> bytes:
        """For pyrage's thread: what was written; an error instead of an end that is none."""
        data = os.read(self._from, size)
        if not data and not self._ended:
            raise OSError("the stream was given up")
        return data

    def close(self) -> None:
        """End the file well."""
        self._ended = True
        self.abort()
        self._error.raise_it()

    def abort(self) -> None:
        """Stop; unless ``close`` has been called, what is there is no whole age file."""
        if self._to >= 0:
            os.close(self._to)
            self._to = -1
        self._thread.join()


@contextmanager
def decrypting(source: Reader, identity: Identity) -> Iterator[Reader]:
    """A reader of what is encrypted in ``source``.

    Raises:
        KeyRefused: from its ``read``: the identity is not one of the recipients.
        BadBackup: from its ``read``, at the latest at the end: it is damaged or cut off.
    """
    import pyrage

    kept = _Kept()
    come, go = os.pipe()

    def work() -> None:
        with open(go, "wb", closefd=False) as sink:
            pyrage.decrypt_io(_Guarded(source, kept), _Guarded(sink, kept), [identity])

    thread = threading.Thread(target=kept.run, args=(work, go), daemon=True)
    thread.start()
    try:
        yield _Piped(come, thread, kept)
    finally:
        os.close(come)  # the thread, if it is still writing, ends with that
        thread.join()


class _Kept:
    """The first error of a stream, as it was before pyrage put it into words."""

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def keep(self, error: BaseException) -> None:
        self._error = self._error or error

    def run(self, work: Callable[[], None], end: int) -> None:
        """A thread's body: keep what ``work`` raises; its ``end`` of the pipe is closed in any case."""
        try:
            work()
        except BaseException as error:
            self.keep(error)
        finally:
            os.close(end)

    def raise_it(self) -> None:
        from pyrage import DecryptError

        error = self._error
        if isinstance(error, DecryptError) and "No matching keys" in str(error):
            raise KeyRefused("this key does not open the archive", "give the key that it was encrypted to") from error
        if isinstance(error, DecryptError) or (isinstance(error, OSError) and error.errno is None):
            raise BadBackup(f"the archive is damaged: {error}") from error
        if error is not None:
            raise error


class _Guarded:
    """A stream whose own errors are kept."""

    def __init__(self, stream: Any, kept: _Kept) -> None:
        self._stream, self._kept = stream, kept

    def read(self, size: int) -> Any:
        return self._call(self._stream.read, size)

    def write(self, data: bytes) -> Any:
        return self._call(self._stream.write, data)

    def flush(self) -> None:
        """pyrage asks for it; whoever opened the stream flushes it."""

    def _call(self, do: Callable[[Any], Any], value: Any) -> Any:
        try:
            return do(value)
        except BaseException as error:
            self._kept.keep(error)
            raise


class _Piped:
    """The reading end; at the end of the pipe it says how the thread ended."""

    def __init__(self, end: int, thread: threading.Thread, kept: _Kept) -> None:
        self._end, self._thread, self._kept = end, thread, kept

    def read(self, size: int) -> bytes:
        data = os.read(self._end, size)
        if not data:
            self._thread.join()
            self._kept.raise_it()
        return data

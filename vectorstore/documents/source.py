"""Documents in a folder: a scan that only stats, in the ledger's order, and a read that proves what it read.

What a scan follows and what it leaves out:

- A symbolic link to a file is a document under the link's own name, wherever the file lies. A link to a folder is
  entered; one that leads back into a folder it lies in is a problem and is not entered. A link to nothing is a problem.
- Pipes, sockets and devices are no documents. Nothing is opened by a scan, so none can block it.
- The folders ``.git``, ``.hg`` and ``.svn`` are never entered. Other hidden names are names like any other.
- A file that goes away between the listing and its stat is simply not there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from stat import S_ISREG
from typing import NamedTuple

from vectorstore.documents.patterns import Patterns
from vectorstore.errors import DocumentError, EmptySource

RACY_NS = 2_000_000_000  # the coarsest clock of a file system in use: FAT's two seconds
READ_ATTEMPTS = 4
_ROOT_HINT = "check the setting `source`, and that its disk is mounted and readable"
_VERSION_CONTROL = frozenset((".git", ".hg", ".svn"))


class Entry(NamedTuple):
    """What a scan knows of a document: its key, its size in bytes and its times in nanoseconds."""

    doc_key: str
    size: int
    mtime_ns: int
    ctime_ns: int


class Document(NamedTuple):
    """A document that was read.

    Attributes:
        text: without a byte order mark, lines end with ``\\n``; "" for one of white space.
        content_hash: 16 bytes of BLAKE2b over the file's bytes as they lie on the disk.
        entry: size and times of exactly these bytes; they may differ from those of the scan.
        racy: the file changed so shortly before it was read (or in the future) that another change could leave the
            same size and times behind. Its times prove nothing: the next run has to read it again.
    """

    doc_key: str
    text: str
    content_hash: bytes
    entry: Entry
    racy: bool


class FileSource:
    """The documents of a folder.

    Args:
        root: the folder; a relative one is fixed against the working directory of now. A key never depends on how
            the root is spelled.
        include: patterns of documents, see ``vectorstore.documents.patterns``.
        exclude: patterns of what is left out, folders or files; stronger than ``include``.
        max_document_bytes: a larger file is refused unread.
        clock_ns: the time now, in nanoseconds since 1970.

    Attributes:
        problems: what the last scan could not look at: a document, or a folder (its key ends with ``/``) below which
            nothing is known. What the ledger has under such a key must not be taken for deleted.

    Raises:
        ConfigurationError: a pattern is invalid.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        max_document_bytes: int,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        # Not normalised: a ".." after a symbolic link means something else to the kernel than to normpath.
        self.root = os.path.join(os.getcwd(), os.fspath(root))
        self._base = os.path.join(self.root, "")
        self._patterns = Patterns(include, exclude)
        self._max_bytes = max_document_bytes
        self._clock_ns = clock_ns
        self.problems: list[DocumentError] = []

    def scan(self) -> Iterator[Entry]:
        """Every document, in the order of its key's UTF-8 bytes, which is SQLite's; memory holds a listing a level.

        Only a scan that ended says what is gone: it raises when the root went away meanwhile.

        Raises:
            EmptySource: the root is missing, no folder, unreadable, or was exchanged while it was scanned.
        """
        self.problems = []
        identity = self._identity()
        base, stat, matches, new = self._base, os.stat, self._patterns.matches, tuple.__new__
        stack: list[tuple[str, list[str]]] = []
        prefix, names = "", self._list("")
        while True:
            while names:
                key = prefix + names.pop()
                if key[-1] == "/":
                    stack.append((prefix, names))
                    prefix, names = key, self._list(key)
                    continue
                if matches is not None and not matches(key):
                    continue
                try:
                    found = stat(base + key)
                except OSError as error:
                    self._not_there(key, error)
                    continue
                if S_ISREG(found.st_mode):
                    # What Entry(...) does, at half its price.
                    yield new(Entry, (key, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
            if not stack:
                break
            prefix, names = stack.pop()
        if self._identity() != identity:
            raise EmptySource(f"source {self.root} was exchanged while it was scanned", "run again")

    def read(self, entry: Entry) -> Document:
        """The document, as it is now.

        Raises:
            DocumentError: it is gone, unreadable, no regular file, too large, binary, not UTF-8, or never stays the
                same while it is read.
        """
        from hashlib import blake2b  # costs 2 ms, which a run with nothing to read saves

        now = self._clock_ns()
        raw, seen = self._settled(entry.doc_key)
        text = _decode(entry.doc_key, raw)
        read = Entry(entry.doc_key, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        racy = max(read.mtime_ns, read.ctime_ns) > now - RACY_NS
        return Document(entry.doc_key, text, blake2b(raw, digest_size=16).digest(), read, racy)

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self._base)  # with its slash: a file is "not a directory"
            return found.st_dev, found.st_ino
        except OSError as error:
            raise EmptySource(f"source {self.root} can't be opened: {error.strerror}", _ROOT_HINT) from None

    def _list(self, folder: str) -> list[str]:
        """The names to visit in a folder, last one first. A folder's name ends with a slash: so sorts its content."""
        names: list[str] = []
        suffixes = self._patterns.suffixes
        try:
            with os.scandir(self._base + folder) as listing:
                for entry in listing:
                    if entry.is_file(follow_symlinks=False):
                        name = entry.name
                        if name.endswith(suffixes):
                            names.append(name)
                    elif name := self._other(folder, entry):
                        names.append(name)
        except FileNotFoundError:
            return []
        except OSError as error:
            if not folder:
                raise EmptySource(f"source {self.root} can't be listed: {error.strerror}", _ROOT_HINT) from None
            self._problem(folder, f"the folder can't be listed: {error.strerror}")
            return []
        if not "".join(names).isascii():
            names = [name for name in names if self._is_text(folder, name)]
        names.sort(reverse=True)
        return names

    def _other(self, folder: str, entry: os.DirEntry[str]) -> str:
        """What to visit for a name that is no regular file; empty for nothing."""
        if entry.is_symlink():
            try:
                if not entry.is_dir():
                    return entry.name if entry.name.endswith(self._patterns.suffixes) else ""
            except OSError:
                return entry.name  # its stat fails again, and is reported there
        elif not entry.is_dir(follow_symlinks=False):
            return ""
        name = entry.name + "/"
        if entry.name in _VERSION_CONTROL or not self._patterns.enters(folder + name):
            return ""
        if entry.is_symlink() and self._leads_back(folder, entry):
            self._problem(folder + name, "a symbolic link to a folder that it lies in; it is not followed")
            return ""
        return name

    def _leads_back(self, folder: str, entry: os.DirEntry[str]) -> bool:
        ends = [0, *(at + 1 for at, char in enumerate(folder) if char == "/")]
        try:
            target = entry.stat()
            return any(os.path.samestat(target, os.stat(self._base + folder[:end])) for end in ends)
        except OSError:
            return False  # something went away: listing it says what

    def _is_text(self, folder: str, name: str) -> bool:
        try:
            name.encode()
        except UnicodeEncodeError:
            if name[-1] == "/" or self._patterns.matches is None or self._patterns.matches(folder + name):
                self._problem(folder + name, "the name is not valid UTF-8; rename it")
            return False
        return True

    def _not_there(self, key: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            self._problem(key, f"can't be looked at: {error.strerror}")
        elif os.path.islink(self._base + key):
            self._problem(key, "a symbolic link to nothing")

    def _problem(self, key: str, reason: str) -> None:
        self.problems.append(DocumentError(os.fsencode(key).decode(errors="backslashreplace"), reason))

    def _settled(self, key: str) -> tuple[bytes, os.stat_result]:
        """The bytes of a file, and the stat that held before and after they were read."""
        for attempt in range(READ_ATTEMPTS):
            if attempt:
                time.sleep(0.02 * attempt)
            try:
                raw, before, after = self._read_once(key)
            except FileNotFoundError:
                raise DocumentError(key, "it is gone since the scan") from None
            except OSError as error:
                raise DocumentError(key, f"it can't be read: {error.strerror}") from None
            if len(raw) == before.st_size and _stamp(before) == _stamp(after):
                return raw, after
        raise DocumentError(key, "it changes while it is read")

    def _read_once(self, key: str) -> tuple[bytes, os.stat_result, os.stat_result]:
        # Without O_NONBLOCK a pipe put in the file's place would hold this process until somebody writes to it.
        handle = os.open(self._base + key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            before = os.fstat(handle)
            if not S_ISREG(before.st_mode):
                raise DocumentError(key, "it is not a regular file")
            if before.st_size > self._max_bytes:
                raise DocumentError(key, f"it is too large: {before.st_size:,} bytes, {self._max_bytes:,} are allowed")
            parts, missing = [], before.st_size + 1  # one more: a file that grew shows
            while missing > 0 and (part := os.read(handle, missing)):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts), before, os.fstat(handle)
        finally:
            os.close(handle)


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _decode(key: str, raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DocumentError(key, "it is not UTF-8 but UTF-16; save it as UTF-8")
    if (at := raw.find(0)) >= 0:
        raise DocumentError(key, f"it is binary: a NUL byte at offset {at:,}")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(key, f"it is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start:,}") from None
    text = text.removeprefix("\ufeff")
    if text.isspace():
        return ""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

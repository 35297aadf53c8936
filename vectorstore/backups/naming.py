"""Names that a backup may hold: relative, portable, and no two that any file system would take for one."""

from __future__ import annotations

import re
import unicodedata

BACKUP_NAME = re.compile(r"backup_\d{8}_\d{6}", re.ASCII)
MANIFEST_FILE = "manifest.json"  # the last member of every archive
_PART_BYTES = 255
_PATH_BYTES = 1024


def safe_name(name: str) -> bool:
    """Whether ``name`` is a relative POSIX path in NFC that leads nowhere but down, on any system."""
    if not name or "\\" in name or name[1:2] == ":" or unicodedata.normalize("NFC", name) != name:
        return False
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return False  # control characters, among them NUL; lone surrogates
    parts = [part.encode() for part in name.split("/")]
    if any(part in (b"", b".", b"..") or len(part) > _PART_BYTES for part in parts):
        return False
    return len(name.encode()) <= _PATH_BYTES


class Names:
    """Names taken one by one, each unlike all others in case, normal form, and as a file or a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}  # as compared, as spelled

    def take(self, name: str) -> None:
        """Add a name.

        Raises:
            ValueError: it is not safe, or it is there already, perhaps in other letters or as a folder.
        """
        if not safe_name(name) or _compared(name) == MANIFEST_FILE:
            raise ValueError(f"{name!r} can't be the name of a member")
        compared = _compared(name)
        if compared in self._files or compared in self._folders:
            raise ValueError(f"{name!r} is there twice")
        for end in (place for place, character in enumerate(name) if character == "/"):
            folder = _compared(name[:end])
            if folder in self._files or self._folders.setdefault(folder, name[:end]) != name[:end]:
                raise ValueError(f"{name[:end]!r} is there twice")
        self._files.add(compared)


def _compared(name: str) -> str:
    """What the most forgetful file system makes of a name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

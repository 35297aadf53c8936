"""Where copies of backups lie off-site: a folder, or whatever fsspec reaches by an address.

A place knows files by name, writes one whole, reads it, and gives it another name that nobody has. A folder is done by
hand, so that what is in it is on the disk; of the others, object stores show an object only when it is whole, and SFTP
renames without overwriting.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from vectorstore.backups.placing import place, sync_folder, unlink, write_all
from vectorstore.errors import ConfigurationError

BLOCK = 4 << 20  # bytes of a read
_PARALLEL_READS = 64  # of SFTP, in flight


class Place(Protocol):
    """Files of one folder, wherever it is; every method may raise what the way there raises."""

    where: str

    def sizes(self) -> dict[str, int]:
        """Bytes by name of the files there."""

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes, a block at a time, as they lie there."""

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, over one that is there."""

    def move(self, old: str, new: str) -> None:
        """Give a file another name; ``FileExistsError`` where it is taken."""

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""

    def close(self) -> None:
        """Leave it."""


def open_place(url: str) -> Place:
    """The place at a folder's path or an address of fsspec's.

    Raises:
        ConfigurationError: the folder is not there, the address holds a password, its protocol is not known, or needs
            a package that is not installed.
    """
    if "::" in url:
        raise ConfigurationError(f"{url}: an address through another is no place for backups", "name the last one")
    parts = urlsplit(url)
    if parts.password is not None:
        bare = parts._replace(netloc=f"{parts.username or ''}@{parts.netloc.rpartition('@')[2]}").geturl()
        raise ConfigurationError(
            f"the address {bare} holds a password",
            f"take it out, and give it as FSSPEC_{parts.scheme.upper()}_PASSWORD",
        )
    if "://" not in url or parts.scheme in ("file", "local"):
        return FolderPlace(Path(url.partition("://")[2] if "://" in url else url).expanduser().absolute())
    return _remote(url, parts.scheme)


def _remote(url: str, protocol: str) -> RemotePlace:
    import fsspec
    from fsspec.registry import known_implementations

    options: dict[str, Any] = {"skip_instance_cache": True}  # a connection that broke must not be met again
    try:
        if protocol in ("sftp", "ssh") and not fsspec.config.conf.get("sftp", {}).get("host_key_policy"):
            options["host_key_policy"] = _known_hosts_only()
        system, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        known = known_implementations.get(protocol, {})
        raise ConfigurationError(f"{url}: {known.get('err') or error}", "see offsite_url in docs/settings.md") from None
    return RemotePlace(url, system, str(root).rstrip("/"))


def _known_hosts_only() -> Any:
    """SSH's own rule: whoever is not in ``~/.ssh/known_hosts`` may be anybody."""
    import paramiko

    class KnownHostsOnly(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            known = paramiko.HostKeys()
            with contextlib.suppress(FileNotFoundError):
                known.load(str(Path("~/.ssh/known_hosts").expanduser()))
            if not known.check(hostname, key):
                raise ConfigurationError(
                    f"{hostname} is not in ~/.ssh/known_hosts, or there with another key",
                    "log in once with ssh; FSSPEC_SFTP_HOST_KEY_POLICY=auto_add trusts anybody",
                )

    return KnownHostsOnly()


class FolderPlace:
    """A folder: another disk, a share that is mounted. It is never made: a disk that is not mounted would not be
    noticed."""

    def __init__(self, folder: Path) -> None:
        self.where, self.folder = str(folder), folder
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} is not a folder", "see whether its disk is mounted; else make it")

    def sizes(self) -> dict[str, int]:
        """Bytes by name of the files there."""
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return found

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes, as they lie there."""
        handle = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
            while block := os.read(handle, BLOCK):
                yield block
        finally:
            os.close(handle)

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, and bring it there for good."""
        unlink(self.folder / name)  # a part may be the file itself under its first name
        handle = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            for block in blocks:
                write_all(handle, block)
            os.fsync(handle)
        finally:
            os.close(handle)

    def move(self, old: str, new: str) -> None:
        """Give a file a name that nobody has."""
        place(self.folder / old, self.folder / new)
        sync_folder(self.folder)
        self.remove(old)

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        unlink(self.folder / name)
        sync_folder(self.folder)

    def close(self) -> None:
        """Nothing is open."""


class RemotePlace:
    """A place by one of fsspec's file systems.

    Args:
        where: its address, for messages.
        system: the file system; not typed.
        root: the folder's path in it, without a slash at its end.
    """

    def __init__(self, where: str, system: Any, root: str) -> None:
        self.where, self._system, self._root = where, system, root

    def sizes(self) -> dict[str, int]:
        """Bytes by name of the files there."""
        self._system.invalidate_cache()
        try:
            listed = self._system.ls(self._root, detail=True)
        except FileNotFoundError:
            if hasattr(self._system, "ftp"):
                raise ConfigurationError(f"{self.where} is not a folder", "make it") from None
            return {}  # an object store knows no empty folders
        return {each["name"].rpartition("/")[2]: int(each["size"]) for each in listed if each["type"] == "file"}

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes, as they lie there."""
        with self._system.open(self._path(name), "rb", block_size=BLOCK, cache_type="none") as handle:
            if prefetch := getattr(handle, "prefetch", None):
                prefetch(max_concurrent_requests=_PARALLEL_READS)
            while block := handle.read(BLOCK):
                yield block

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a file, and bring it there for good."""
        with self._system.open(self._path(name), "wb") as handle:
            if pipelined := getattr(handle, "set_pipelined", None):
                pipelined()
            for block in blocks:
                handle.write(block)

    def move(self, old: str, new: str) -> None:
        """Give a file a name that nobody has."""
        self._system.invalidate_cache()
        if self._system.exists(self._path(new)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        self._mover()(self._path(old), self._path(new))

    def _mover(self) -> Callable[[str, str], None]:
        system = self._system
        if sftp := getattr(system, "ftp", None):
            return sftp.rename  # type: ignore[no-any-return]  # unlike ``mv`` it never overwrites
        if not system.async_impl:
            return system.mv  # type: ignore[no-any-return]

        def copy_and_remove(old: str, new: str) -> None:
            system.cp_file(old, new)  # an object is there when it is whole
            system.rm_file(old)

        return copy_and_remove

    def remove(self, name: str) -> None:
        """Remove a file that may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def close(self) -> None:
        """Leave it."""
        if client := getattr(self._system, "client", None):
            client.close()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

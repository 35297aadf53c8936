"""The way to a place off-site: tried again where it may be better the next time, and told in words where it is not."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import TypeVar

from vectorstore.backups.places import Place, open_place
from vectorstore.errors import VectorkeepError

ATTEMPTS, LONGEST_WAIT_S = 4, 8.0
_PERSISTENT = ("s3", "s3a")  # their client tries each request many times by itself
_FOR_GOOD = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NETWORK = ("paramiko", "botocore", "aiobotocore", "aiohttp")  # packages whose errors are not all of the system's kind
_REFUSALS = ("AuthenticationException", "BadHostKeyException", "PasswordRequiredException", "NoCredentialsError")
_Result = TypeVar("_Result")


def at_place(url: str, doing: str, work: Callable[[Place], _Result]) -> _Result:
    """Work at the place of an address.

    Args:
        url: see ``places.open_place``.
        doing: what is done, in words, for the error.
        work: done anew, on a new connection, after an error of the network.

    Raises:
        VectorkeepError: what ``work`` raises of these; the way there failed for good.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def attempt() -> _Result:
        with contextlib.closing(open_place(url)) as place:
            return work(place)

    attempts = 2 if url.partition(":")[0] in _PERSISTENT else ATTEMPTS
    again = Retrying(
        stop=stop_after_attempt(attempts), wait=wait_random_exponential(0.5, LONGEST_WAIT_S, min=0.2), reraise=True,
        retry=retry_if_exception(_is_transient),
    )  # fmt: skip
    try:
        return again(attempt)
    except VectorkeepError:
        raise
    except Exception as error:
        hint = "make room there" if getattr(error, "errno", 0) in _FULL else "see that it can be reached and written"
        said = getattr(error, "strerror", "") or str(error) or type(error).__name__
        raise VectorkeepError(f"{doing} at {url} failed: {said}", f"{hint}, then run again: nothing is lost") from error


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, (VectorkeepError, *_FOR_GOOD)) or type(error).__name__ in _REFUSALS:
        return False
    if isinstance(error, OSError):
        return error.errno not in _FULL
    return isinstance(error, EOFError) or type(error).__module__.partition(".")[0] in _NETWORK

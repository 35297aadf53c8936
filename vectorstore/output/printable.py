"""Text from outside, made safe to show: names of documents can hold anything but a slash and a zero byte."""

from __future__ import annotations


def printable(text: str, limit: int = 0) -> str:
    """``text`` in one line; what a terminal or a browser would act on is shown as an escape, and does nothing.

    That is control characters, line ends, marks that turn the direction of writing (U+202E makes ``gpj.exe`` read
    ``exe.jpg``), and the halves of characters that stand for bytes of a file's name that are not UTF-8.

    Args:
        text: anything.
        limit: characters to show at most; a longer text loses its middle, as ids differ at their ends. 0: all.
    """
    if limit and len(text) > 4 * limit:  # don't escape a megabyte to show a line
        text = text[: 2 * limit] + text[-2 * limit :]
    shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    if not limit or len(shown) <= limit:
        return shown
    tail = (limit - 1) // 2
    return f"{shown[: limit - 1 - tail]}…{shown[len(shown) - tail :]}"

"""The name of the collection that a document belongs to."""

from __future__ import annotations

import re
from functools import lru_cache

from vectorstore.errors import ConfigurationError

ROOT = "root"  # the folder of what lies in no folder
MAX_PART = 200  # characters of a template or of a folder's part; Chroma takes 512 in all
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_CLEAN = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]*[a-zA-Z0-9])?")
_MARKED = re.compile(r".*-[0-9a-f]{12}")


def collection_name(template: str, doc_key: str) -> str:
    """The collection of a document, valid for Chroma.

    ``{folder}`` in the template stands for the first part of the key, or ``root`` for a key without a folder. A
    folder that Chroma would not take, or that could be mistaken for another, gets twelve digits of its hash behind
    what is left of it: different folders never share a collection. A template without ``{folder}`` is one name.

    Raises:
        ConfigurationError: another placeholder, or a name that Chroma refuses.
    """
    folder, slash, _ = doc_key.partition("/")
    return _name(template, folder if slash else None)


@lru_cache(maxsize=4096)
def _name(template: str, folder: str | None) -> str:
    _check(template)
    if folder is None:
        return template.replace("{folder}", ROOT)
    plain = template.replace("{folder}", folder)
    # "root" itself and what looks like a marked name are marked as well: else they could meet one that is.
    own = folder != ROOT and not _MARKED.fullmatch(folder) and len(folder) <= MAX_PART
    if own and _CLEAN.fullmatch(folder) and _is_valid(plain):
        return plain
    from hashlib import blake2b

    kept = re.sub(r"[^a-zA-Z0-9]+", "-", folder[:MAX_PART]).strip("-") or "folder"
    mark = blake2b(folder.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    return template.replace("{folder}", f"{kept}-{mark}")


def _check(template: str) -> None:
    hint = 'a name of 3 to 200 letters, digits, ".", "_", "-", with {folder} where the folder goes: "docs_{folder}"'
    if re.search(r"[{}]", template.replace("{folder}", "")):
        raise ConfigurationError(f"collection = {template!r} has a placeholder other than {{folder}}", hint)
    if template.count("{folder}") > 1 or len(template) > MAX_PART or not _is_valid(template.replace("{folder}", ROOT)):
        raise ConfigurationError(f"collection = {template!r} is no name for a Chroma collection", hint)


def _is_valid(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and ".." not in name and not _IPV4.fullmatch(name)


def building_suffix(pipeline: str) -> str:
    """What a collection's name ends with while it is built beside the serving one."""
    from hashlib import blake2b

    return f"--next-{blake2b(pipeline.encode(), digest_size=4).hexdigest()}"

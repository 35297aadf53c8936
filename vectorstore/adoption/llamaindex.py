"""What LlamaIndex keeps beside a row: its node as JSON, which tells where a text began and what was embedded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NODE_KEY = "_node_content"
START_KEY = "start_char_idx"


def read_node(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a row, empty for a row that LlamaIndex did not write."""
    raw = metadata.get(NODE_KEY)
    try:
        node = json.loads(raw) if isinstance(raw, str) else {}
    except ValueError:
        return {}
    return node if isinstance(node, dict) else {}


def embedded_text(node: Mapping[str, Any], text: str) -> str:
    """What the vector of a row was made of: its metadata stand before the text, but for those that are excluded.

    By default that is the file's path, so the vector is not the one of the text alone.
    """
    metadata, excluded = node.get("metadata"), node.get("excluded_embed_metadata_keys") or ()
    if not isinstance(metadata, dict) or not isinstance(excluded, list | tuple):
        return text
    line = str(node.get("metadata_template") or "{key}: {value}")
    seam = str(node.get("metadata_separator") or node.get("metadata_seperator") or "\n")
    lines = [
        line.replace("{key}", key).replace("{value}", str(value))
        for key, value in metadata.items()
        if key not in excluded
    ]
    before = seam.join(lines).strip()
    if not before:
        return text
    whole = str(node.get("text_template") or "{metadata_str}\n\n{content}")
    head, mark, tail = whole.partition("{content}")
    return (head.replace("{metadata_str}", before) + (text + tail if mark else "")).strip()

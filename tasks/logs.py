"""Logs without secrets: of Prefect, of the library and of all that they use, tracebacks as well.

Prefect keeps in its database whatever a run logs. A record is made clean where it is made, so that no handler sees
another.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

from vectorstore.redaction import redacted

_made = logging.getLogRecordFactory()


def _clean(*args: Any, **options: Any) -> logging.LogRecord:
    record = _made(*args, **options)
    try:
        text = record.getMessage()
    except Exception:  # wrong arguments: logging itself tells where the record is shown
        return record
    if (clean := redacted(text)) != text:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[0]:
        said = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = redacted(said)
    return record


def keep_secrets_out() -> None:
    """From now on, in this process; more than once changes nothing."""
    logging.setLogRecordFactory(_clean)

"""Lets a process wait or fail at a step. Python imports this by itself where its folder is on ``PYTHONPATH``.

``PAUSE_AT`` names the step: ``before vectorstore.ledger:Ledger.commit``, or ``after ... 3`` for the third. There the
process writes its id into the file ``PAUSE_FILE``, and goes on once the update was asked to stop. At ``FAIL_AT`` an
exception is raised that nobody foresaw, and that tells the key. Nothing else of the process is changed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from stepping import act_at


def _asked_to_stop() -> bool:
    """Whether `tasks.watching.watched`, which waits in the main thread, has passed a signal on."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    while frame.f_back and frame.f_code.co_name != "watched":
        frame = frame.f_back
    return frame.f_code.co_name != "watched" or frame.f_locals["stop"].is_set()


def _pause() -> None:
    unnamed = Path(os.environ["PAUSE_FILE"] + ".new")
    unnamed.write_text(str(os.getpid()))
    unnamed.rename(os.environ["PAUSE_FILE"])
    while not _asked_to_stop():
        time.sleep(0.02)


def _fail() -> None:
    raise ValueError(f"nobody foresaw {os.environ['OPENAI_API_KEY']!r}")


for _name, _act in (("PAUSE_AT", _pause), ("FAIL_AT", _fail)):
    if _name in os.environ:
        act_at(os.environ[_name], _act)

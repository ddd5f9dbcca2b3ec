"""Waiting is never silent: what goes on, on a terminal's stderr, once it takes long.

Nothing is shown where stderr is no terminal, unless AFAFILTER_PROGRESS=1 asks for it; 0 forbids it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

PATIENCE = 1.5
"""Seconds before anything is said."""
PULSE = 1.0
"""Seconds between two signs of life."""

_busy = threading.Lock()


def watched() -> bool:
    """Whether somebody looks at stderr, or asks for progress by AFAFILTER_PROGRESS=1."""
    asked = os.environ.get("AFAFILTER_PROGRESS", "")
    if asked in ("0", "1"):
        return asked == "1"
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


@contextmanager
def waiting(words: str, hint: str = "") -> Iterator[None]:
    """Say on stderr what goes on (`words`) and for how long it has, if it takes long.

    Cleared at the end; of several the outermost speaks. `hint` is a cheaper way, said before the
    work.
    """
    if not watched() or not _busy.acquire(blocking=False):
        yield
        return
    over = threading.Event()
    began = time.monotonic()

    def speak() -> None:
        pause, said = PATIENCE, False
        while not over.wait(pause):
            pause, said = PULSE, True
            say(f"\r{words} ... {time.monotonic() - began:.0f} s", end="")
        if said:
            say("\r\033[K", end="")

    say = partial(print, file=sys.stderr, flush=True)
    if hint:
        say(hint)
    voice = threading.Thread(target=speak, daemon=True)
    voice.start()
    try:
        yield
    finally:
        over.set()
        voice.join()
        _busy.release()

"""No garbage collection while many small objects are made: each would go through all that the process holds."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_num_inside = 0
_collected_before = True


@contextmanager
def garbage_waits() -> Iterator[None]:
    """Meanwhile garbage is not collected, until the last of those inside, in any thread, has left."""
    global _num_inside, _collected_before
    with _lock:
        if _num_inside == 0:
            _collected_before = gc.isenabled()
            gc.disable()
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0 and _collected_before:
                gc.enable()

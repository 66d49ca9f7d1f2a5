"""Garbage waits while something is constructed, and is collected again afterwards, as it was before."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from residualdroppath.core.garbage import garbage_waits


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    yield
    gc.enable()


def test_it_waits_until_the_last_has_left() -> None:
    with pytest.raises(ValueError), garbage_waits():
        with garbage_waits():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()


def test_who_collects_by_hand_goes_on_doing_so() -> None:
    gc.disable()
    with garbage_waits():
        pass
    assert not gc.isenabled()


def test_it_waits_for_other_threads_too() -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with garbage_waits():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(10)
    with garbage_waits():
        pass
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()

"""Processes that load images: only the process that started them ends them."""

from __future__ import annotations

import os
import signal
import threading


def end_with_parent_alone(worker: int) -> None:
    """Pass over a SIGTERM that the parent did not send, as `worker_init_fn` of a `DataLoader`.

    Batch systems send it to all processes of a job. The parent then saves its state and ends by itself; a worker that
    died first would raise an error in the midst of that.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who has sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # as a worker of torch does

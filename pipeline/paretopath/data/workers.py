"""Processes that prepare batches, under a cluster that signals every process of a job."""

import os
import signal
from threading import Thread


def ended_by_its_parent_alone(_: int) -> None:
    """Lets a worker pass over a SIGTERM that is not its parent's; for ``worker_init_fn``.

    A batch system that preempts a job tells all of its processes. The one that trains saves where
    it is; workers that died at once would fail it before it could. PyTorch's own workers pass over
    nothing. They end with their parent, by its word or by its death. Where a system can't tell who
    sent a signal (macOS), they stay as PyTorch's.
    """
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_hear, daemon=True).start()


def _hear() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # as PyTorch's own handler does

"""Signals by which a cluster says that a job's time is over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

Cause = Literal["time limit", "preemption"]


class Interrupted(Exception):
    """A training was told to stop, and has saved where it is.

    Attributes:
        cause: ``time limit``: there is time left to put the job back into the queue.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(f"stopped by {cause}, after saving a checkpoint")
        self.cause = cause


class Signals:
    """Notes signals, for a training to act on between two steps.

    SIGTERM is what a job gets before it is preempted, requeued or cancelled; SLURM sends the other
    one, SIGUSR2 as submitit chose, some time before the limit.

    Attributes:
        cause: of the first signal so far; None while there was none.
    """

    def __init__(self) -> None:
        self.cause: Cause | None = None
        limit = signal.Signals["SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")]
        self._causes: dict[int, Cause] = {signal.SIGTERM: "preemption", limit: "time limit"}

    def install(self) -> None:
        """Takes the place of other handlers; in the main thread."""
        for number in self._causes:
            signal.signal(number, self._note)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever handlers are installed inside the block, those from before come back."""
        before = {number: signal.getsignal(number) for number in self._causes}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.cause = self.cause or self._causes[number]

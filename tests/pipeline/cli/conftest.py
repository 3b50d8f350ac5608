"""What the tests of the command line share."""

from collections.abc import Iterator

import pytest

from paretopath.cli import faults


@pytest.fixture(autouse=True)
def _no_run_yet() -> Iterator[None]:
    """Commands run in this process, each as the first: none has a run directory yet."""
    token = faults.LOG_FOLDER.set(None)
    yield
    faults.LOG_FOLDER.reset(token)

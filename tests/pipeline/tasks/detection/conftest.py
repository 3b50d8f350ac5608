"""Nothing of one test is known to the next."""

import pytest

from paretopath.data.saying import say


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    say.cache_clear()

"""What tests of fronts share."""

import pytest

from paretopath.front import Front
from tests.pipeline.front.example_fronts import BENT, front_of, point


@pytest.fixture
def bent() -> Front:
    return front_of(*(point(float(e), a, i) for i, (e, a) in enumerate(BENT)))

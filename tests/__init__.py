"""Tests run beside each other, a process a core, and start others: what all of these share."""

import os
import sys

# libraries shall not take all cores in each of them
os.environ.setdefault("OMP_NUM_THREADS", "1")

# bytecode is kept, also in a container that says not to: torch takes seconds to compile, each time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

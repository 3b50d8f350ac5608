"""Devices by name, and memory that is kept."""

import os
import subprocess
import sys

import pytest
import torch

from paretopath.devices import check_device, find_device, has_bfloat16, keep_freed_memory
from paretopath.errors import InvalidValueError

FAULTS = """
import resource, sys
from paretopath.devices import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
faults = [0]
for _ in range(10):
    bytes(b"x") * (64 << 20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(kept), faults[-1] - faults[1])
"""


def page_faults(*arguments: str, **environment: str) -> tuple[bool, int]:
    """Whether a process keeps memory, and its page faults in nine blocks after a first."""
    output = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return bool(int(output[0])), int(output[1])


def test_devices_are_known_by_torchs_names():
    assert check_device("cuda:1") == "cuda:1"
    assert find_device("cpu").type == "cpu"
    with pytest.raises(InvalidValueError, match=r"'gpu'; .*cuda"):
        check_device("gpu")


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc, or told otherwise")
def test_kept_memory_is_not_mapped_anew():
    kept, few = page_faults("keep")
    given_back, many = page_faults("give back")
    assert kept and not given_back
    assert few * 10 < many


def test_glibcs_own_variables_have_the_last_word():
    kept, _ = page_faults("keep", MALLOC_MMAP_MAX_="65536")
    assert not kept


@pytest.mark.parametrize(
    ("own", "has"),
    [({}, False), ({"amx_bf16": False}, False), ({"amx_bf16": True, "avx2": True}, True)],
)
def test_bfloat16_is_only_where_the_processor_has_it(own, has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True} | own)
    assert has_bfloat16(torch.device("cpu")) == has

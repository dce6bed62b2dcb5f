"""Kernels take what the processor has, whichever compiler they were built with."""

import platform
import sys
from pathlib import Path

import pytest

from mfstore._core import chunk, crc

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="what is chosen from is in x86-64 processors"
)


@pytest.mark.parametrize(
    ("implementation", "among", "wanted"),
    [
        ("clmul", crc.implementations(), {"pclmulqdq", "sse4_1"}),
        ("vclmul", crc.implementations(), {"pclmulqdq", "sse4_1", "vpclmulqdq", "avx512f"}),
        ("avx2", chunk.implementations(), {"avx2"}),
    ],
)
def test_an_implementation_is_there_if_the_kernel_says_so(implementation, among, wanted):
    """The kernel of the system, that is, which lists what it lets programs use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).partition(":")[2].split())
    assert (implementation in among) == (wanted <= flags)

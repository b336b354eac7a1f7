"""ops.memory: which mappings are given back, and that nothing breaks by it."""

import subprocess
import sys

from tradeback.ops.memory import clean_mappings

MAPS = """\
7f0000000000-7f0000001000 r--p 00000000 fe:00 1 /x/libllvmlite.so
7f0000001000-7f0000004000 r-xp 00001000 fe:00 1 /x/libllvmlite.so
7f0000004000-7f0000006000 r--p 00004000 fe:00 1 /x/libllvmlite.so
7f0000006000-7f0000007000 r--p 00006000 fe:00 1 /x/libllvmlite.so
7f0000007000-7f0000008000 rw-p 00007000 fe:00 1 /x/libllvmlite.so
7f0000008000-7f0000009000 rw-p 00000000 00:00 0
7f0000009000-7f000000a000 r-xp 00000000 fe:00 2 /x/libother.so
"""


def test_only_clean_pages_of_the_named_libraries() -> None:
    assert list(clean_mappings(MAPS)) == [
        (0x7F0000000000, 0x1000),
        (0x7F0000001000, 0x3000),
        (0x7F0000004000, 0x2000),
    ]


def test_a_map_that_ends_with_the_library() -> None:
    assert list(clean_mappings(MAPS.splitlines()[0])) == [(0x7F0000000000, 0x1000)]


def test_kernels_work_and_the_compiler_too_afterwards() -> None:
    script = (
        "import tradeback\n"
        "from numba import njit\n"
        "from tradeback.ops.memory import give_back\n"
        "def rss():\n"
        "    return int(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))\n"
        "assert njit(lambda x: x + 1)(1) == 2\n"
        "before = rss()\n"
        "give_back()\n"
        "after = rss()\n"
        "assert njit(lambda x: x + 2)(1) == 3\n"
        "print(before, after)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before

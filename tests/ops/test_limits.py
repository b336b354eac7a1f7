"""ops.limits: the soft limit goes up to what is wanted, never above the hard one, never down."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from tradeback.ops.limits import open_files, raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
print(raise_open_files({wanted}), *open_files())
"""


@pytest.mark.parametrize(("wanted", "now"), [(32, 64), (100, 100), (4_096, 128)])
def test_raise_open_files(wanted: int, now: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wanted=wanted)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(now), str(now), "128"]

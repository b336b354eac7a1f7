"""Ctrl-C in a terminal reaches the whole process group of the demo: it ends with 0 and leaves nothing."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.flow.running import children_of, until


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


async def test_the_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradeback", "demo", "--port", "0",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
    )  # fmt: skip
    try:
        assert demo.stdout is not None
        while b"trades/s" not in (line := await asyncio.wait_for(demo.stdout.readline(), 90)):
            assert line, "it ended by itself"
        children = children_of(demo.pid)
        assert len(children) == 2, "simulator and engine"
        assert [path.name.startswith("tradeback-demo-") for path in tmp_path.iterdir()] == [True]
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = await asyncio.wait_for(demo.communicate(), 30)
    finally:
        if demo.returncode is None:
            demo.kill()
    assert demo.returncode == 0, errors.decode()
    assert b"Traceback" not in errors
    await until(lambda: not any(alive(child) for child in children), "the children's end", 5)
    assert list(tmp_path.iterdir()) == []

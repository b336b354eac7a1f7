"""cli.children: announcements, last words, and that nobody is left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tradeback.cli.children import Child, ChildFailed

SIM = ("sim", "--port", "0", "--announce")


async def test_a_child_announces_itself_and_stops() -> None:
    child = await Child.start("the simulator", SIM, os.environ)
    announced = await child.announcement(30)
    assert set(announced) == {"ws", "rest"}
    await child.stop()
    assert not alive(child.pid)


async def test_a_refusal_is_told_with_its_words_and_code() -> None:
    heard: list[str] = []
    child = await Child.start("the engine", ("run",), {**os.environ, "FEED_LAG_MAX": "10"}, heard.append)
    with pytest.raises(ChildFailed, match="the engine ended with exit code 2") as caught:
        await child.announcement(30)
    assert "feed.lag_max" in str(caught.value)
    assert caught.value.exit_code == 2
    assert any("feed.lag_max" in line for line in heard)
    await child.stop()


async def test_a_child_that_dies_is_noticed() -> None:
    child = await Child.start("the simulator", SIM, os.environ)
    await child.announcement(30)
    failing = asyncio.ensure_future(child.failure())
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildFailed, match="exit code -9"):
        await asyncio.wait_for(failing, 30)
    await child.stop()


async def test_a_child_that_says_nothing_is_given_up() -> None:
    child = await Child.start("the simulator", ("sim", "--port", "0"), os.environ)
    with pytest.raises(ChildFailed, match="did not start within 0 s"):
        await child.announcement(0.01)
    await child.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, os\n"
        "from tradeback.cli.children import Child\n"
        "async def main():\n"
        f"    child = await Child.start('sim', {SIM!r}, os.environ)\n"
        "    await child.announcement(30)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert alive(pid)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while alive(pid):
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody waits for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"

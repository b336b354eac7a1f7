"""stores/series_lock: one writer at a time, and a killed one holds nobody up."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tradeback.model.errors import StartupError
from tradeback.stores import series_lock


def test_one_at_a_time(tmp_path: Path) -> None:
    first = series_lock.take(tmp_path)
    with pytest.raises(StartupError, match="DATA_DIR"):
        series_lock.take(tmp_path, wait_s=0.03)
    taken = threading.Event()

    def wait() -> None:
        second = series_lock.take(tmp_path)
        taken.set()
        second.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not taken.wait(0.05)
    first.close()
    assert taken.wait(5)
    waiting.join()


def test_a_killed_process_gives_it_back(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tradeback.stores import series_lock;"
        "held = series_lock.take(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StartupError):
            series_lock.take(tmp_path, wait_s=0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        series_lock.take(tmp_path, wait_s=5).close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="DATA_DIR"):
        series_lock.take(tmp_path / "file")

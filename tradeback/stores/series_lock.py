"""One writer of a series store: whoever derives bars holds this lock from reading its position to the end.

Two at once would both write what lies behind the same position, and count it twice. The lock goes with
the process, however it ends.
"""

import fcntl
import io
import time
from pathlib import Path

from tradeback.model.errors import StartupError

NAME = "series.lock"
WAIT_S = 15.0
"""A predecessor that is ending may still have its last flush to write."""
STEP_S = 0.02


def take(data_dir: Path, wait_s: float = WAIT_S) -> io.FileIO:
    """The lock of the store in `data_dir`; close the file to give it back. Blocks, so call it in a thread.

    Raises StartupError when somebody else has it for longer than `wait_s`.
    """
    path = data_dir / NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = io.FileIO(path, "a")
    except OSError as error:
        raise StartupError(
            f"{path} cannot be written ({error.strerror}): set DATA_DIR to another folder"
        ) from error
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError:
            if time.monotonic() > end:
                file.close()
                raise StartupError(
                    f"bars in {data_dir} are being written by another process: stop that one, "
                    "or set DATA_DIR to another folder"
                ) from None
            time.sleep(STEP_S)

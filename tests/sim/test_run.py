"""`tradeback sim` as a program: announce, end, refuse."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

RUN = [sys.executable, "-c", "from tradeback.cli.sim import sim; sim()"]


def test_it_announces_serves_and_ends_cleanly() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen([*RUN, "--port", "0", "--announce"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            urls = json.loads(process.stdout.readline())
            assert urls["ws"].startswith("ws://127.0.0.1:")
            with urllib.request.urlopen(urls["rest"] + "/api/v3/ping") as response:
                assert response.read() == b"{}"
            process.send_signal(number)
            assert process.stdout.read() == b""
            assert process.wait(10) == 0


def test_a_busy_port_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options in (["--port", port], ["--port", "0", "--rest-port", port]):
            done = subprocess.run([*RUN, *options], capture_output=True, timeout=20, check=False)
            assert (done.returncode, done.stdout) == (2, b"")
            (line,) = done.stderr.decode().splitlines()
            assert "is in use" in line
            assert "--port" in line


def test_a_missing_recording_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [*RUN, "--port", "0", "--source", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert "--source" in line

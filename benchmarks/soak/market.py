"""The simulated exchange of a soak as a child process: `tradeback sim --announce`."""

from collections.abc import Sequence

from benchmarks.harness.announced import Announced


class Market(Announced):
    """A running `tradeback sim`. Use as a context manager."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` of the command besides the port. Returns when it listens; raises CommandError."""
        super().__init__("simulator")
        found = self._start("sim", "--port", "0", "--announce", *arguments)
        self.ws_endpoint, self.rest_endpoint = found["ws"], found["rest"]

"""A headless Chromium, driven over the DevTools protocol: for the page's benchmark, its tests and pictures.

The browser is the system's (Debian's package `chromium`; CHROMIUM names another). Nothing else is needed:
the protocol is JSON over a WebSocket.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage", "--disable-extensions",
    "--mute-audio", "--hide-scrollbars", "--remote-debugging-port=0", "--font-render-hinting=none",
)  # fmt: skip
START_S = 60.0
ANSWER_S = 60.0
POLL_S = 0.02
KEY_CODES = {
    "Escape": 27,
    "Enter": 13,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "End": 35,
}
"""What the browser's own reactions to a key go by."""
Json = dict[str, Any]


class NoBrowser(RuntimeError):
    """There is no Chromium here."""


class BrowserError(AssertionError):
    """The page, or the browser, did not do what was wanted of it: in a test, a failure."""


def chromium() -> str:
    """Path of the browser. Raises NoBrowser."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else NAMES:
        found = shutil.which(name)
        if found:
            return found
    raise NoBrowser("no chromium: `make browser` installs one")


class Tab:
    """One page. `console` and `requests` are what it has said and asked for, `received` the bytes of the
    answers, with their heads; those of WebSockets are not among them.
    """

    def __init__(self, browser: "Browser", session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target
        self.console: list[str] = []
        self.requests: list[str] = []
        self.received = 0

    async def send(self, method: str, **params: Any) -> Json:
        """One command; its result."""
        return await self.browser.send(method, self.session, **params)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited when it is a promise. Raises what it throws."""
        found = await self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = 30.0) -> Any:
        """Wait for an expression to become true (not null, 0, false or ''); its value."""
        value = failed = None
        try:
            async with asyncio.timeout(seconds):
                while not value:
                    try:
                        value, failed = await self.evaluate(script), None
                    except BrowserError as error:
                        failed = error  # a page that is still loading lacks much
                    if not value:
                        await asyncio.sleep(POLL_S)
        except TimeoutError:
            words = f"never true: {script}; {failed or ''} the console: {self.console[-5:]}"
            raise BrowserError(words) from None
        return value

    async def open(self, url: str) -> None:
        """Go to an address and wait for the document."""
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def size(self, width: int, height: int, *, scale: float = 1.0, phone: bool = False) -> None:
        """The size of the window, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        await self.send("Emulation.setDeviceMetricsOverride", **metrics)
        await self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    async def key(self, key: str) -> None:
        """Press and release a key."""
        more: Json = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": KEY_CODES[key]}
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def click(self, selector: str) -> None:
        """A click of the mouse in the middle of an element."""
        box = await self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, **where)

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is in sight, or of the whole page."""
        found = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    async def text(self, selector: str) -> str:
        """The text of an element."""
        found = await self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        return str(found)

    def note(self, method: str, params: Json) -> None:
        """An event of the page."""
        if method == "Runtime.consoleAPICalled":
            words = (str(arg.get("value", arg.get("description", ""))) for arg in params["args"])
            self.console.append(f"{params['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(
                f"thrown: {details.get('exception', {}).get('description') or details['text']}"
            )
        elif method == "Log.entryAdded":
            entry = params["entry"]
            self.console.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}".rstrip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.loadingFinished":
            self.received += int(params["encodedDataLength"])


class Browser:
    """A running browser; `tab` opens pages in it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._tabs: dict[str, Tab] = {}
        self._count = 0
        self._reading = asyncio.create_task(self._read())

    async def send(self, method: str, session: str | None = None, **params: Any) -> Json:
        """One command; its result. BrowserError with the browser's words when it refuses."""
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        message: Json = {"id": self._count, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(ANSWER_S):
            found = await answer
        if "error" in found:
            raise BrowserError(f"{method}: {found['error']['message']}")
        result: Json = found["result"]
        return result

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            answer = self._answers.pop(message.get("id", 0), None)
            if answer is not None and not answer.done():
                answer.set_result(message)
            elif "method" in message and (tab := self._tabs.get(message.get("sessionId", ""))) is not None:
                tab.note(message["method"], message["params"])

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """An empty page with a profile of its own: cookies and storage are nobody else's."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        made = await self.send("Target.createTarget", url="about:blank", browserContextId=context)
        target = made["targetId"]
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"], target)
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.send(f"{domain}.enable")
        await tab.size(1280, 800)
        try:
            yield tab
        finally:
            with contextlib.suppress(BrowserError, websockets.ConnectionClosed):
                await self.send("Target.disposeBrowserContext", browserContextId=context)

    async def close(self) -> None:
        """End the reader; the process is the owner's business."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with an empty profile, ended and cleaned up behind the block. Raises NoBrowser."""
    program = chromium()
    with tempfile.TemporaryDirectory(prefix="tradeback-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, *FLAGS, f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            url = await _address(Path(profile) / "DevToolsActivePort", process)
            async with websockets.connect(url, max_size=None, compression=None, ping_interval=None) as socket:
                running = Browser(socket)
                try:
                    yield running
                    with contextlib.suppress(BrowserError, websockets.ConnectionClosed):
                        await running.send("Browser.close")
                finally:
                    await running.close()
        finally:
            await _end(process)


async def _address(file: Path, process: asyncio.subprocess.Process) -> str:
    """Where the browser listens, once it has said so."""
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                port, path = file.read_text("ascii").split("\n")[:2]
                return f"ws://127.0.0.1:{int(port)}{path}"
            if process.returncode is not None:
                raise BrowserError(f"chromium ended with {process.returncode}")
            await asyncio.sleep(POLL_S)


async def _end(process: asyncio.subprocess.Process) -> None:
    """All of its processes: they are a group of their own."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    await process.wait()

"""A headless Chromium, driven over a pipe with the DevTools protocol: no package is needed.

Chromium reads JSON messages from file descriptor 3 and writes its own to 4; a zero byte ends each.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39,
        "ArrowUp": 38, "ArrowDown": 40, "Home": 36, "End": 35}  # fmt: skip


def program() -> str | None:
    """The path of Chromium, or None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab. `errors` has what its console and its scripts complained about, and `requests` the
    addresses that it asked for since `go`."""

    def __init__(self, profile: Path):
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()

        def place() -> None:  # by way of high numbers, as 3 or 4 may be one of the two
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (child_in, child_out)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program(), *FLAGS, f"--user-data-dir={profile}"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place, pass_fds=(3, 4),
        )  # fmt: skip
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._count, self.errors, self.requests = b"", 0, [], []
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        self.process.terminate()
        self.process.wait(10)

    # The protocol

    def send(self, method: str, **params):
        """Call a method, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, deadline: float):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            self._buffer += os.read(self._in, 1 << 20)
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"]["exception"].get("description", "?"))
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    # What a user does

    def go(self, url: str) -> None:
        self.errors.clear()
        self.requests.clear()
        self.send("Page.navigate", url="about:blank")  # so that another hash loads the page again
        self.send("Page.navigate", url=url)
        self.wait("document.querySelector('#scripted button')")

    def run(self, expression: str):
        """The value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 30) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        box = self.run(
            f"(() => {{ const n = document.querySelector({json.dumps(selector)}); "
            "n.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const r = n.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left",
                      clickCount=1)  # fmt: skip

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        text = {"Enter": "\r", " ": " "}.get(key)
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key.strip() or "Space",
                      windowsVirtualKeyCode=KEYS[key], modifiers=8 * shift, **extra)  # fmt: skip

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1,
             calm: bool = False) -> None:  # fmt: skip
        """The size of the window, and what the reader prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)  # fmt: skip
        features = {"prefers-color-scheme": "dark" if dark else "light",
                    "prefers-reduced-motion": "reduce" if calm else "no-preference"}  # fmt: skip
        self.send("Emulation.setEmulatedMedia",
                  features=[{"name": n, "value": v} for n, v in features.items()])  # fmt: skip

    def picture(self, *, whole: bool = False) -> bytes:
        """A screenshot, as PNG; `whole` takes all of the page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


@contextmanager
def chromium(folder: Path):
    """A tab in a new Chromium whose profile and downloads lie in `folder`."""
    page = Page(folder / "profile")
    page.folder = folder
    try:
        page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        yield page
    finally:
        page.close()

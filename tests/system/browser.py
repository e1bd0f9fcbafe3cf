"""A real headless Chromium, spoken to by the DevTools protocol over pipes: no driver and no package of its own."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ANSWER_S = 60.0


def find_browser() -> str | None:
    """Returns the path of a Chromium; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="shoal-browser-", ignore_cleanup_errors=True)
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # The protocol's ends are the child's descriptors 3 and 4, whatever they were called here.
        command = f'exec 3<&{reads} 4>&{writes}; exec "$@"'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={self._profile.name}", "--no-first-run", "--disable-extensions", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", program, *options],
            pass_fds=(reads, writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reads)
        os.close(writes)
        self._numbers, self._unread, self._session = itertools.count(1), b"", ""
        self.requests: list[str] = []
        """URLs the page has asked for, data: URLs left out."""
        self.problems: list[str] = []
        """What the page's console has complained of."""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str, *, width: int, height: int, dark: bool = False, media: str = "") -> None:
        """Shows a page in a window of this size, in light or dark, and waits until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url=url)
        while (message := self._next()).get("method") != "Page.loadEventFired":
            self._note(message)

    def evaluate(self, script: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and lets go a key, named as the DOM names it."""
        code = {" ": 32, "Enter": 13, "Tab": 9, "ArrowLeft": 37}[key]
        typed = {"text": "\r" if key == "Enter" else key} if key in (" ", "Enter") else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def screenshot(self, path: Path, *, whole: bool = True) -> Path:
        """Writes a picture of the page, all of it or what the window shows."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def close(self) -> None:
        """Ends the browser with all of its processes, which would go on writing into its profile."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif message.get("method") == "Log.entryAdded":
            self.problems.append(message["params"]["entry"]["text"])

    def _next(self) -> dict[str, Any]:
        give_up_at = time.monotonic() + _ANSWER_S
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(give_up_at - time.monotonic(), 0.0))
            if not ready:
                raise TimeoutError(f"the browser said nothing for {_ANSWER_S:.0f} s")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            self._unread += read
        one, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(one)
        return message

"""A headless Chromium, driven by the DevTools protocol on a pipe; ``close`` ends it.

https://chromedevtools.github.io/devtools-protocol/. It needs no package: messages are JSON, a NUL byte
apart, on the browser's fds 3 (in) and 4 (out).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT = 60  # seconds, for one answer of the browser: drawing a report is one


def find() -> str | None:
    """The browser's path; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def wait(condition: Callable[[], Any], seconds: float = TIMEOUT) -> Any:
    """Wait for something outside of the browser; return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


#: Scrolls to each chart; returns what has been drawn in it, and which of its texts are cut off.
DRAW = """(async () => {
  const found = [];
  for (const element of document.querySelectorAll(".chart")) {
    if (!element.clientWidth) continue; // in an answer that is not shown
    element.scrollIntoView();
    while (!element.querySelector(".main-svg .xtick")) await new Promise((done) => setTimeout(done, 5));
    const box = element.getBoundingClientRect();
    const cut = (text) => {
      const { left, right, top, bottom, width } = text.getBoundingClientRect();
      const beside = left < box.left - 1 || right > box.right + 1;
      return width && (beside || top < box.top - 1 || bottom > box.bottom + 1);
    };
    found.push({
      traces: element.data.length,
      points: element.data.map((trace) => trace.x.length),
      drawn: element.querySelectorAll(".trace").length,
      cut: [...element.querySelectorAll("text")].filter(cut).map((text) => text.textContent),
      scrolled: Number(element.querySelector(".legend .scrollbar")?.getAttribute("height") ?? 0),
      svg: element.querySelector(".main-svg").getBoundingClientRect().width,
    });
  }
  return found;
})()"""


class Browser:
    """One browser process with a profile of its own."""

    def __init__(self) -> None:
        path = find()
        assert path is not None
        self.profile = tempfile.mkdtemp(prefix="proact-chromium-")
        ours, theirs_out = os.pipe()
        theirs_in, self.out = os.pipe()
        self.into = ours
        # High numbers, so that neither fd has the number that the other one needs.
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
        quiet = os.open(os.devnull, os.O_RDWR)
        command = [
            path,
            "--headless=new",
            "--no-sandbox",  # the sandbox refuses to run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={self.profile}",
            "about:blank",
        ]
        actions = [
            (os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip((*given, quiet, quiet), (3, 4, 1, 2), strict=True)
        ]
        self.pid = os.posix_spawn(path, command, dict(os.environ), file_actions=actions, setpgroup=0)
        for fd in (theirs_in, theirs_out, *given, quiet):
            os.close(fd)
        self.buffer = b""
        self.last = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command and its result. Raises AssertionError if the browser refuses it."""
        self.last += 1
        message: dict[str, Any] = {"id": self.last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = self._receive(deadline)
            if found.get("id") == self.last:
                assert "error" not in found, (method, found["error"])
                return found["result"]  # type: ignore[no-any-return]
            self.events.append(found)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.into], [], [], left)[0], "the browser does not answer"
            data = os.read(self.into, 1 << 20)
            assert data, "the browser ended"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(line)  # type: ignore[no-any-return]

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A page of that size once it has loaded."""
        return Page(self, url, width, height, dark)

    def close(self) -> None:
        """End the browser, all of its processes, and its profile."""
        try:
            self.send("Browser.close")
        finally:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(self.pid, 0)
            os.close(self.into)
            os.close(self.out)
            shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, url: str, width: int, height: int, dark: bool) -> None:
        self.browser = browser
        self.target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.size(width, height)
        self.scheme(dark)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to this tab."""
        return self.browser.send(method, self.session, **params)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window in CSS pixels; a narrow one is a phone, with touch."""
        phone = width < 600
        scale = 2 if phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def scheme(self, dark: bool) -> None:
        """Set what the visitor prefers."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = TIMEOUT) -> Any:
        """Wait for an expression to be true; return its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(expression)):
            assert time.monotonic() < deadline, f"waited in vain for {expression}; errors: {self.errors()}"
            time.sleep(0.02)
        return value

    def mine(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The events of this tab so far."""
        self.run("0")  # earlier events have arrived when this returns
        return [
            each for each in self.browser.events if each.get("sessionId") == self.session and wanted(each)
        ]

    def errors(self) -> list[str]:
        """Exceptions, and the errors and warnings in the console."""
        names = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        found = [each for each in self.browser.events if each.get("sessionId") == self.session]
        return [json.dumps(each["params"])[:2000] for each in found if each.get("method") in names]

    def requests(self) -> list[str]:
        """The addresses that this tab has asked for."""
        found = self.mine(lambda each: each.get("method") == "Network.requestWillBeSent")
        return [each["params"]["request"]["url"] for each in found]

    def charts(self) -> list[dict[str, Any]]:
        """The drawing in each chart of a report."""
        found: list[dict[str, Any]] = self.run(DRAW)
        return found

    def screenshot(self, path: str | Path, *, whole: bool = True) -> None:
        """A PNG of the whole page, or of its visible part."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Close the tab."""
        self.browser.send("Target.closeTarget", targetId=self.target)

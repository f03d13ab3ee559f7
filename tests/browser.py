"""A headless Chromium, driven through its debugging pipe: what a page says, and how large it is, at any width."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars"),
    "--remote-debugging-pipe",
]


def executable() -> str | None:
    """Find a Chromium, under the names that it has."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Page:
    """One page: `call` sends a command of the DevTools protocol, `said` is what console and log have said."""

    reader: Any
    writer: Any
    session: str = ""
    number: int = 0
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    loaded: bool = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        about = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": parameters, **about}
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while True:
            found = self._next()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def _next(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self.reader.read(1)) != b"\0":
            assert byte, "Chromium went away"
            content += byte
        found = json.loads(content)
        what, about = found.get("method"), found.get("params", {})
        if what == "Runtime.consoleAPICalled":
            self.said.append(json.dumps(about["args"]))
        elif what == "Runtime.exceptionThrown":
            self.said.append(json.dumps(about["exceptionDetails"]))
        elif what == "Log.entryAdded":
            self.said.append(about["entry"]["text"])
        elif what == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif what == "Page.loadEventFired":
            self.loaded = True
        return found

    def open(self, path: Path) -> None:
        """Open a file and wait until it is there."""
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._next()

    def width(self, pixels: int, height: int = 844) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, medium: str = "screen", scheme: str = "light") -> None:
        self.call(
            "Emulation.setEmulatedMedia", media=medium, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture))

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript; the page's own rules, which allow no script, do not bind the debugger."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with an empty profile of its own, and end it afterwards."""
    program = executable()
    assert program is not None
    to_read, to_write = os.pipe(), os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe's ends must be descriptors 3 and 4 of the browser.
        line = f'exec 3<&{to_read[0]} 4>&{to_write[1]}; exec "$@"'
        process = subprocess.Popen(
            ["bash", "-c", line, "bash", program, *QUIET, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read[0], to_write[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        with open(to_read[1], "wb") as writer, open(to_write[0], "rb") as reader:  # noqa: PTH123 -- descriptors
            page = Page(reader, writer)
            try:
                targets = page.call("Target.getTargets")["targetInfos"]
                target = next(each["targetId"] for each in targets if each["type"] == "page")
                page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.call(f"{domain}.enable")
                yield page
            finally:
                page.session = ""
                with suppress(AssertionError, OSError):
                    page.call("Browser.close")
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

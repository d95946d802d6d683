"""The report in a real browser: it draws, it is silent, and it asks no server for anything."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


class Browser:
    """A headless Chromium without any name service, spoken to over its debugging protocol."""

    def __init__(self, profile: Path) -> None:
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-allow-origins=*",
            "--disable-background-networking", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
        )
        try:
            port = self._port(profile / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json/list") as reply:
                pages = [page for page in json.load(reply) if page["type"] == "page"]
            self._socket = websocket.create_connection(
                pages[0]["webSocketDebuggerUrl"], timeout=60, max_size=None
            )
        except BaseException:
            self.close()
            raise
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if file.exists() and (lines := file.read_text().splitlines()):
                return lines[0]
            time.sleep(0.05)
        raise TimeoutError("Chromium did not open its debugging port within a minute")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, expression: str) -> Any:
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False,
             touch: bool = False) -> float:  # fmt: skip
        """Open a report, wait until every figure is drawn, and return the seconds that took."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=touch)  # fmt: skip
        self.events.clear()
        started = time.monotonic()
        self.call("Page.navigate", url=page.as_uri())
        deadline = started + 60
        done = "document.readyState === 'complete' && (!document.getElementById('plotly') " \
               "|| 'drawn' in document.documentElement.dataset)"  # fmt: skip
        while not self.value(done):
            assert time.monotonic() < deadline, self.complaints()
            time.sleep(0.02)
        return time.monotonic() - started

    def complaints(self) -> list[str]:
        """Exceptions, console warnings and errors, log entries."""
        found = []
        for event in self.events:
            method, body = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(body["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and body["type"] in ("error", "warning"):
                found.append(json.dumps(body["args"]))
            elif method == "Log.entryAdded" and body["entry"]["level"] in ("error", "warning"):
                found.append(body["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Everything that was fetched."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()

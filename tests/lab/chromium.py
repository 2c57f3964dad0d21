"""Chromium, as Debian packages it, without a window: what a page looks like, and what it asks for.

Spoken to by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from lab.cluster import ClusterError, Reporter, packages

PACKAGES = {"chromium": "chromium", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core"}
"""By what each brings."""
PATIENCE = 60.0
"""Seconds for one answer."""
LISTENS = re.compile(r"DevTools listening on (ws://\S+)")
OPTIONS = ("--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


def provide(say: Reporter) -> None:
    """Install it where it is missing. Raises ClusterError where it cannot be had."""
    if why_not := packages.provide_of(say, PACKAGES):
        raise ClusterError(f"Chromium: {why_not}")


@dataclass
class Page:
    """One page that was opened. ``requests``: addresses it asked for; ``complaints``: what the console shows."""

    browser: Chromium
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """What JavaScript makes of it."""
        given = {"expression": expression, "returnByValue": True}
        return self.browser.call("Runtime.evaluate", given, self)["result"].get("value")

    def images(self) -> list[str]:
        """The names that a screen reader has for images."""
        nodes = self.browser.call("Accessibility.getFullAXTree", {}, self)["nodes"]
        return [each["name"]["value"] for each in nodes if each.get("role", {}).get("value") in ("image", "img")]

    def screenshot(self, file: Path) -> None:
        """All of the page, as a PNG."""
        shot = self.browser.call("Page.captureScreenshot", {"captureBeyondViewport": True}, self)
        file.write_bytes(base64.b64decode(shot["data"]))


class Chromium:
    """One browser. As a context manager it ends with the block."""

    def __init__(self) -> None:
        """Start it. Raises ClusterError where it does not answer."""
        self._folder = tempfile.mkdtemp(prefix="partwarden-chromium-")
        # Its sandbox needs user namespaces, which root in a container may not have.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        command = ["chromium", *OPTIONS, *root, f"--user-data-dir={self._folder}"]
        environment = {**os.environ, "PATH": packages.search_path(), "HOME": self._folder}
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
        )
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := LISTENS.search(line):
                break
        else:
            self.__exit__()
            raise ClusterError(f"chromium does not start: {said[-500:]}")
        self._socket = websocket.create_connection(found[1], timeout=PATIENCE, suppress_origin=True)
        self._number, self._pages = 0, dict[str, Page]()

    @property
    def version(self) -> str:
        """Such as ``156.0.8078.108``."""
        return str(self.call("Browser.getVersion", {})["product"]).rpartition("/")[2]

    def open(self, address: str, width: int, height: int = 900, *, dark: bool = False) -> Page:
        """The page in a tab of its own, once it is loaded. ``width``, ``height``: of the window, in CSS pixels."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", {}, page)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size, page)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]}, page)
        self.call("Page.navigate", {"url": address}, page)
        while self._receive().get("method") != "Page.loadEventFired":
            pass
        return page

    def call(self, method: str, given: dict[str, Any], page: Page | None = None) -> dict[str, Any]:
        """The answer. Raises ClusterError for an error."""
        self._number += 1
        about = {"sessionId": page.session} if page else {}
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": given, **about}))
        while (said := self._receive()).get("id") != self._number:
            pass
        if "error" in said:
            raise ClusterError(f"chromium: {method}: {said['error']['message']}")
        return dict(said["result"])

    def _receive(self) -> dict[str, Any]:
        """The next message; what it tells of a page is noted there."""
        said: dict[str, Any] = json.loads(self._socket.recv())
        page, about = self._pages.get(said.get("sessionId", "")), said.get("params", {})
        if page is not None and said.get("method") == "Network.requestWillBeSent":
            page.requests.append(about["request"]["url"])
        if page is not None and said.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            page.complaints.append(json.dumps(about))
        if page is not None and said.get("method") == "Log.entryAdded":
            page.complaints.append(about["entry"]["text"])
        return said

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        shutil.rmtree(self._folder, ignore_errors=True)

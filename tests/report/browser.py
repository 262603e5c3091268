"""A headless Chromium, driven over its debugging pipe with nothing but the standard library."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
    *("--disable-background-networking", "--disable-component-update", "--mute-audio"),
)
_PATIENCE = 60.0  # seconds for one answer, on a machine that has much else to do
_TROUBLE = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


def chromium() -> str:
    """Path of a Chromium, or skip: ``SYMLEARN_CHROMIUM``, or one that is on the path."""
    found = os.environ.get("SYMLEARN_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), "")
    if not found:
        pytest.skip("no Chromium on the path; SYMLEARN_CHROMIUM may name one")
    return found


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes:
        trouble: Console messages, exceptions and log entries.
        requests: Addresses that were asked for, besides the page itself.
        overflow: Pixels by which the page is wider than the window.
        ground: Colour of the ground.
        nameless: Pictures without a name in the accessibility tree.
        pictures: Pictures with one.
    """

    trouble: list[str]
    requests: list[str]
    overflow: int
    ground: str
    nameless: int
    pictures: int


class Browser:
    """A running Chromium with one tab.

    Args:
        program: Path of the executable.
    """

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp()
        options = [*_OPTIONS, f"--user-data-dir={self._folder}"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root else
        theirs, self._write = _pipe()
        self._read, back = _pipe()
        quiet = [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
        ends = [(os.POSIX_SPAWN_DUP2, theirs, 3), (os.POSIX_SPAWN_DUP2, back, 4)]
        argv = [program, *options, "about:blank"]
        self._pid = os.posix_spawn(program, argv, os.environ, file_actions=[*quiet, *ends])
        os.close(theirs)
        os.close(back)
        self._buffer, self._count, self._events = b"", 0, list[dict[str, Any]]()
        self._session = ""
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol; returns its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._buffer += part
        first, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        return message

    def look(
        self, page: Path, *, width: int = 1200, scheme: str = "light", media: str = ""
    ) -> Seen:
        """Open a page and say what came of it.

        Args:
            page: An HTML file.
            width: Width of the window in pixels.
            scheme: "light" or "dark", as the user prefers.
            media: "screen" or "print".
        """
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        wish = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=wish)
        self._events.clear()
        address = page.resolve().as_uri()
        self.call("Page.navigate", url=address)
        while not any(e.get("method") == "Page.loadEventFired" for e in self._events):
            self._events.append(self._next())
        overflow = self.evaluate("document.documentElement.scrollWidth") - width
        ground = self.evaluate("getComputedStyle(document.body).backgroundColor")
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        images = [n for n in nodes if n.get("role", {}).get("value") == "image"]
        named = [n for n in images if n.get("name", {}).get("value", "").strip()]
        sent = [e["params"] for e in self._events if e.get("method") == "Network.requestWillBeSent"]
        urls = [p["request"]["url"] for p in sent]
        return Seen(
            [json.dumps(e["params"]) for e in self._events if e.get("method") in _TROUBLE],
            [url for url in urls if url != address and not url.startswith("data:")],
            overflow,
            ground,
            len(images) - len(named),
            len(named),
        )

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression)["result"]["value"]

    def close(self) -> None:
        """End the browser."""
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are numbered above those that are handed over."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]

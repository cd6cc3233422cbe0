"""A real browser that tests look at pages with, by the protocol of its developers' tools."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMAND = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
"""Tests run as root, as which its sandbox does not work."""


class Browser:
    """A browser without a window: commands go to its descriptor 3, answers come from 4, each with a zero behind it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._numbers = itertools.count(1)
        self._rest = b""
        self.heard: list[dict[str, Any]] = []
        """What it told by itself."""

    def close(self) -> None:
        """End the conversation, by which the browser ends."""
        self._commands.close()
        self._answers.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Do something, and return the result."""
        number = next(self._numbers)
        more = {"sessionId": session} if session else {}
        message = {"id": number, "method": method, "params": parameters, **more}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != number:
            self.heard.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._answers.fileno(), 2**20)
            assert piece, "the browser has ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    @contextmanager
    def page(self, path: Path, width: int, *, dark: bool = False) -> Iterator[Page]:
        """Load a file as on a screen that is so many pixels wide."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.heard.clear()
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable", session)
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
        self.call("Emulation.setDeviceMetricsOverride", session, **screen)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", session, features=features)
        self.call("Page.navigate", session, url=path.absolute().as_uri())
        while self._next_event() != "Page.loadEventFired":
            pass
        yield Page(self, session)
        self.call("Target.closeTarget", targetId=target)

    def _next_event(self) -> str:
        self.heard.append(self._next())
        return self.heard[-1].get("method", "")


class Page:
    """A page that was loaded."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is, which the page itself could not run."""
        found = self._browser.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write what is seen to a PNG."""
        path.write_bytes(base64.b64decode(self._browser.call("Page.captureScreenshot", self._session)["data"]))

    def names(self) -> list[tuple[str, str]]:
        """Return the role and the name of each thing that a screen reader knows."""
        nodes = self._browser.call("Accessibility.getFullAXTree", self._session)["nodes"]
        return [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]]

    @property
    def complaints(self) -> list[str]:
        """What the console has, and each request but the one for the page."""
        self.value("0")  # what was told until now has come
        told = [one for one in self._browser.heard if one.get("sessionId") == self._session]
        kinds = {
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
        }
        asked = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
        return [json.dumps(one) for one in told if one["method"] in kinds] + [
            url for url in asked[1:] if not url.startswith("data:")
        ]


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start a browser that keeps what it has in `folder`."""
    commands, answers = os.pipe(), os.pipe()

    def descriptors() -> None:
        # they may have these numbers already, and each other's
        low = os.dup(commands[0]), os.dup(answers[1])
        os.dup2(low[0], 3)
        os.dup2(low[1], 4)

    process = subprocess.Popen(
        [*COMMAND, f"--user-data-dir={folder}"],
        preexec_fn=descriptors,  # noqa: PLW1509  # a test's process, in which no other thread holds a lock
        close_fds=False,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TZ": "UTC"},
    )
    os.close(commands[0])
    os.close(answers[1])
    browser = Browser(commands[1], answers[0])
    try:
        yield browser
    finally:
        browser.close()
        process.kill()
        process.wait()

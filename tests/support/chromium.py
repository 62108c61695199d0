"""A real browser for the tests of pages: Chromium without a window, driven by its DevTools protocol over two pipes."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "TEACHONCE_REQUIRE_CHROMIUM"
"""Set where a browser must be there, as in CI: tests that would be skipped without one fail."""
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    # Pages are files: what one asks of a network is refused at once, whatever network there is.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
_PATIENCE_S = 60.0


def executable() -> str | None:
    """Path of the first browser that is installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def required_executable() -> str:
    """The same; a test that finds none is skipped, or fails where a browser must be there."""
    program = executable()
    if program is None and not os.environ.get(REQUIRED):
        pytest.skip("Chromium is not installed")
    assert program, f"{REQUIRED} is set, and Chromium is not installed"
    return program


class Tab:
    """One page of the browser, and what its console said."""

    def __init__(self, browser: "_Connection", session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []
        """Errors, warnings, exceptions and what the page's policy forbade."""

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is all there."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.run("document.readyState") != "complete":
            time.sleep(0.02)

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Show the page as on a screen of some width in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        # Else they would take a part of the width, and screenshots would lack it.
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, expression: str) -> Any:
        """Value of an expression of JavaScript, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key of the keyboard."""
        names = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **names, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {**size, "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        answer, events = self._browser.call(method, params, self._session)
        for event in events:
            complaint = _complaint(event)
            if complaint:
                self.complaints.append(complaint)
        return answer


def _complaint(event: dict[str, Any]) -> str:
    params = event["params"]
    if event["method"] == "Runtime.exceptionThrown":
        return json.dumps(params["exceptionDetails"])
    if event["method"] == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
        return json.dumps(params["args"])
    if event["method"] == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
        return json.dumps(params["entry"])
    return ""


class _Connection:
    """Messages of JSON, each ended by a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._rest = b""

    def call(self, method: str, params: dict[str, object], session: str | None) -> tuple[dict[str, Any], list[Any]]:
        """Send a command; its answer, and the events that came before it."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        events: list[Any] = []
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"], events
            events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE_S)
            data = os.read(self._from, 1 << 20) if ready else b""
            assert data, "the browser says nothing any more"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with one empty tab; ended at the end.

    Args:
        program: to run.
        profile: folder for what it keeps.
    """
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    words = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    # It reads from descriptor 3 and writes to 4.
    shell = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *words],
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_in)
    os.close(their_out)
    connection = _Connection(our_out, our_in)
    try:
        target, _ = connection.call("Target.createTarget", {"url": "about:blank"}, None)
        words_of_target = {"targetId": target["targetId"], "flatten": True}
        session, _ = connection.call("Target.attachToTarget", words_of_target, None)
        yield Tab(connection, session["sessionId"])
        connection.call("Browser.close", {}, None)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(our_out)
        os.close(our_in)

"""Chromium for tests: one process with one tab, spoken to over its debugging pipe."""

import itertools
import json
import os
import re
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_PATIENCE_S = 120
_DRAWN = """new Promise((done) => {
  const root = document.documentElement, charts = document.getElementById("payload");
  const look = () => !charts || root.dataset.drawn ? done() : setTimeout(look, 10);
  look();
})"""

_LOOK = """[
  document.querySelectorAll(".chart > .marks").length,
  [...document.querySelectorAll(".chart .problem")].map((one) => one.textContent),
  Math.max(0, document.documentElement.scrollWidth - innerWidth),
  getComputedStyle(document.body).backgroundColor,
]"""


class Browser:
    """A page at a time, and all that the browser says of it.

    Attributes:
        complaints: of the page that is open: errors, and what its policy forbade.
        requests: the addresses that it asked for.
    """

    def __init__(self, folder: Path):
        assert CHROMIUM
        self._page = folder / "page.html"
        # Chromium reads commands from descriptor 3 and answers at descriptor 4.
        self._process = subprocess.Popen(
            [
                "sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1',
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
                "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._heard = b""
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self.complaints: list[str] = []
        self.requests: list[str] = []
        tab = self.send("Target.createTarget", url="about:blank")["targetId"]
        given = self.send("Target.attachToTarget", targetId=tab, flatten=True)
        self._session = {"sessionId": given["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, page: str, width: int = 1200, dark: bool = False) -> None:
        """Open a page and wait until its charts are drawn."""
        self._page.write_text(page, encoding="utf-8")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        self.send("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.send("Page.navigate", url=self._page.as_uri())
        while self.run("document.readyState") != "complete":
            pass
        self.run(_DRAWN)
        self.requests.remove(self._page.as_uri())

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page, whatever its policy, and give the value."""
        given = self.send(
            "Runtime.evaluate",
            expression=expression, awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command of the debugging protocol and wait for its answer."""
        number = next(self._numbers)
        asked = {"id": number, "method": method, "params": parameters} | self._session
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked).encode() + b"\0")
        while (said := self._read()).get("id") != number:
            self._note(said["method"], said["params"])
        assert "error" not in said, (method, said["error"])
        return said["result"]

    def close(self) -> None:
        """End the browser."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait(timeout=30)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        while b"\0" not in self._heard:
            speaks, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_S)
            assert speaks, f"chromium has said nothing for {_PATIENCE_S} s"
            more = os.read(self._process.stdout.fileno(), 1 << 20)
            assert more, "chromium has ended"
            self._heard += more
        text, _, self._heard = self._heard.partition(b"\0")
        return json.loads(text)

    def _note(self, event: str, given: dict[str, Any]) -> None:
        if event == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(given["args"]))
        elif event == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])


def check_page(browser: Browser, page: str) -> None:
    """A page keeps its policy, asks for nothing, draws every chart and fits a phone."""
    found = re.search(r'id="payload">(.*?)</script>', page, flags=re.S)
    charts = len(json.loads(found[1])["charts"]) if found else 0
    for width, dark, paper in (
        (1200, False, "rgb(255, 255, 255)"),
        (390, True, "rgb(21, 23, 27)"),
    ):
        browser.open(page, width, dark)
        drawn, problems, wide, colour = browser.run(_LOOK)
        said = browser.complaints + browser.requests + problems
        assert not said, said
        assert (drawn, wide, colour) == (charts, 0, paper), (drawn, wide, colour)

"""Hostile words on a page, and hostile markup put into it: nothing runs or leaves."""

import dataclasses
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import Browser, check_page
from synthetic_run import Sizes, make_run
from test_report import hostile_run
from test_training_loop import start

from jaxheads.report import sections, several
from jaxheads.report.page import render_page
from jaxheads.report.sections import Page

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

TITLE = 'document.title="run"'
WORDS = (
    f'@ink {{{{7*7}}}} </script></style></title><script>{TITLE}</script>'
    f"<img src=ADDRESS onerror='{TITLE}'><a href='javascript:{TITLE}'>]]>--></a>"
    "<base href=ADDRESS> \u2028 \u202eright to left " + "long" * 100
)  # fmt: skip
NOT_SHOWN = ("anchor", "mark", "colour", "name", "renderer", "field", "type")
SHOWN_OF_CHARTS = ("values", "datasets", "domain", "sort", "title", "text", "subtitle")
MARKUP = f"""
<script>{TITLE}</script><script src="ADDRESS"></script><svg onload='{TITLE}'></svg>
<img src="ADDRESS" onerror='{TITLE}'><iframe src="ADDRESS"></iframe>
<iframe srcdoc='<script>parent.{TITLE}</script>'></iframe><object data="ADDRESS">
</object><style>@import "ADDRESS";</style><link rel="stylesheet" href="ADDRESS">
<link rel="prefetch" href="ADDRESS"><p style="background: url(ADDRESS)">text</p>
<video src="ADDRESS"></video><base href="ADDRESS"><a href='javascript:{TITLE}'>x</a>
<form action="ADDRESS" target="_blank"><button onclick='{TITLE}'>x</button></form>
"""


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was asked for there."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/taken", asked
        listening.shutdown()
        thread.join()


def worsened(value: Any, words: str, shown: bool = True) -> Any:
    """A part of a page with the words after every text that it shows."""
    again = lambda inner, own=shown: worsened(inner, words, own)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        each = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        own = {n: again(x, n != "spec") for n, x in each.items() if n not in NOT_SHOWN}
        return dataclasses.replace(value, **own)
    if isinstance(value, dict):
        shows = lambda name: (
            name not in NOT_SHOWN and (shown or name in SHOWN_OF_CHARTS)
        )
        return {n: again(x, shows(n)) for n, x in value.items()}
    if isinstance(value, list):
        return [again(inner) for inner in value]
    if isinstance(value, tuple):
        return (
            type(value)(*map(again, value))
            if hasattr(value, "_fields")
            else tuple(map(again, value))
        )
    return f"{value} {words}" if shown and isinstance(value, str) else value


def study() -> Page:
    return sections.collect(hostile_run())


def several_runs() -> Page:
    sizes = Sizes(2, 3, draws=2, fractions=(0.2,))
    made = [make_run(Path(f"run {seed}"), seed, sizes) for seed in (0, 1)]
    for seed, run in enumerate(made):
        run.result["fingerprint"] = str(seed)
        run.result["config"]["seed"] = seed
    return several.collect(made)


@pytest.mark.parametrize("kind", ["study", "several", "training"])
def test_hostile_words_are_shown_and_do_nothing(
    kind: str, browser: Browser, server, tmp_path
):
    address, asked = server
    words = WORDS.replace("ADDRESS", address)
    if kind == "training":
        page = sections.collect(start(tmp_path / "run"))
    else:
        page = study() if kind == "study" else several_runs()
    check_page(browser, render_page(worsened(page, words)))
    hover = """[...document.querySelectorAll(".chart [aria-label]")].slice(0, 200).map(
      (one) => one.dispatchEvent(new PointerEvent("pointermove", {bubbles: true})))"""
    browser.run(hover)
    assert browser.run("document.scripts.length") == 3
    added = "img, iframe, base, style + style, a:not([href^='#'])"
    assert browser.run(f'document.querySelectorAll("{added}").length') == 0
    shown = browser.run("document.querySelector('main').textContent")
    assert shown.count(words) > 50
    assert browser.run("document.title") != "run"
    time.sleep(0.3)
    assert browser.complaints == browser.requests == asked == []


def test_markup_put_into_a_page_does_nothing(browser: Browser, server):
    address, asked = server
    sizes = Sizes(2, 3, draws=1, fractions=(0.2,))
    page = render_page(sections.collect(make_run(parts=("scores",), sizes=sizes)))
    page = page.replace("<main>", "<main>" + MARKUP.replace("ADDRESS", address), 1)
    for text, runs in (page, False), (page.replace("Content-Security", "No"), True):
        browser.open(text)
        time.sleep(0.5)
        assert (browser.run("document.title") == "run") == runs
        if not runs:  # without the policy these would leave the page
            browser.run("document.querySelector('main a').click()")
            browser.run("document.querySelector('main button').click()")
            time.sleep(0.5)
            assert browser.run("document.title") != "run"
        assert bool(asked) == runs, asked

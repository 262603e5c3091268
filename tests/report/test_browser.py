"""The page in headless Chromium: no errors, no requests, words for pictures, no scrolling aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from symlearn.report import StructureReport
from tests.report import samples
from tests.report.browser import Browser, Seen, chromium

BROKEN = """<!DOCTYPE html><html><head><title>x</title></head><body>
<div style="width: 900px">wide</div><svg role="img" width="9" height="9"></svg>
<img src="http://127.0.0.1:9/a.png"><script>console.error("no")</script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser(chromium())
    yield found
    found.close()


def faults(seen: Seen) -> set[str]:
    found = {
        "trouble": bool(seen.trouble),
        "requests": bool(seen.requests),
        "overflow": seen.overflow > 0,
        "nameless": seen.nameless > 0 or seen.pictures == 0,
    }
    return {name for name, is_so in found.items() if is_so}


def test_faults_are_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    found = browser.look(tmp_path / "broken.html", width=360)
    assert faults(found) == {"trouble", "requests", "overflow", "nameless"}


@pytest.mark.parametrize("make", [samples.whole, samples.awkward], ids=lambda m: m.__name__)
def test_the_page_in_a_browser(
    browser: Browser, make: Callable[[], StructureReport], tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    text = make().to_html(page)
    for width in (320, 360, 800, 1200):
        found = browser.look(page, width=width)
        assert faults(found) == set(), found
        assert found.pictures == text.count("<svg")


def test_the_page_is_dark_on_a_dark_screen_and_white_on_paper(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    samples.quadrant().to_html(page)
    assert browser.look(page).ground == "rgb(246, 248, 250)"
    assert browser.look(page, scheme="dark").ground == "rgb(13, 17, 23)"
    assert browser.look(page, scheme="dark", media="print").ground == "rgb(255, 255, 255)"

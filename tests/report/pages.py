"""What is wrong with a page, found by reading it as a browser's parser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "hr", "input"}
_ADDRESS = {"src", "href", "xlink:href", "data", "action", "srcset", "poster"}
_OUTSIDE = re.compile(r"https?:|//|@import|url\((?!#)")


class Page(HTMLParser):
    """Collects what is wrong, headings, and the words that stand for pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.headings: list[str] = []
        self.alts: list[str] = []
        self._open: list[str] = []
        self._ids: list[str] = []
        self._wanted: set[str] = set()
        self._style = ""
        self.feed(text.removeprefix("<!DOCTYPE html>"))
        self.close()
        self.problems += [f"{tag} is not closed" for tag in self._open]
        self.problems += [f"id {i} occurs twice" for i in set(self._ids) if self._ids.count(i) > 1]
        self.problems += [f"nothing has the id {i}" for i in self._wanted - set(self._ids)]
        rules = ("prefers-color-scheme: dark", "@media print", "max-width")
        self.problems += [f"no rule for {rule}" for rule in rules if rule not in self._style]
        if _OUTSIDE.search(self._style):
            self.problems.append("the style needs the network")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"{tag} is closed where it is not open")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if self._open and self._open[-1] == "style":
            self._style += data

    def _look_at(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "script" or any(name.startswith("on") for name in found):
            self.problems.append(f"{tag} runs a script")
        if tag in ("svg", "img"):
            alt = found.get("aria-label" if tag == "svg" else "alt", "")
            self.alts.append(alt)
            if len(alt) < 20 or (tag == "svg" and found.get("role") != "img"):
                self.problems.append(f"{tag} has no words that stand for it")
        if "id" in found:
            self._ids.append(found["id"])
        for name, value in found.items():
            if name in _ADDRESS and not value.startswith(("#", "data:")):
                self.problems.append(f"{tag} needs {value}")
            if name == "style" and _OUTSIDE.search(value):
                self.problems.append(f"the style of {tag} needs the network")
            self._wanted |= set(re.findall(r"url\(#([^)]+)\)", value))
            if name in _ADDRESS and value.startswith("#"):
                self._wanted.add(value[1:])

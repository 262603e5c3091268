"""Draw the pictures of the front page, each on a light and on a dark ground.

    make demo && .venv/bin/python docs/pictures/draw.py build/demo

`layer-*.svg` says what a relaxed layer is. `verdicts-*.svg` shows what `make demo` has learned: its
reports, its accuracies and two of its images.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from symlearn import StructureReport, demo

WIDTH = 760
CONV, FREE, OTHER = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito
NAMES = {"digit": "Which digit?", "quadrant": "Which digit, in which quadrant?"}
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
ROWS = {"MAP-CONV": "strict CNN", "MAP-FC": "fully connected", "learned": "learned"}


@dataclass(frozen=True)
class Ground:
    """Colours of text, quiet lines and faint areas."""

    ink: str
    quiet: str
    faint: str


GROUNDS = {
    "light": Ground("#222222", "#6E6E6E", "#E4E4E4"),
    "dark": Ground("#EDEDED", "#A8A8A8", "#3A3F4B"),
}


def text(x: float, y: float, words: str, color: str, size: int = 14, **more: str) -> str:
    """Words at a place; further attributes by name."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}"{extra}>{words}</text>'


def box(x: float, y: float, w: float, h: float, fill: str, **more: str) -> str:
    """A rectangle."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}"{extra}/>'


def arrow(points: str, color: str) -> str:
    """A line with a head at its end."""
    return (
        f'<path d="{points}" fill="none" stroke="{color}" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def page(height: int, title: str, parts: list[str], ground: Ground) -> str:
    """The picture as a file."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{ground.quiet}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">'
        f"<title>{title}</title><defs>{head}</defs>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def cells(x: float, y: float, size: float, values: list[list[float]], color: str) -> str:
    """A grid of squares, as opaque as the values."""
    found = [
        box(x + j * size, y + i * size, size - 1, size - 1, color, fill_opacity=f"{value:.2f}")
        for i, row in enumerate(values)
        for j, value in enumerate(row)
        if value > 0.03
    ]
    return "".join(found)


# --- What a relaxed layer is ---

SHIFT = [[0.9, 0.3], [0.3, 0.6]]  # one small filter, again and again
FREE_MAP = [
    [((7 * i * i + 5 * j + 3 * i * j) % 11) / 12 + 0.08 for j in range(6)] for i in range(6)
]


def layer(ground: Ground) -> str:
    """Paths side by side, each with its variance, and their sum."""
    rows = [
        ("conv", "one filter everywhere", "commutes with shifts", CONV, 1.0),
        ("ffc", "a weight for every place", "no symmetry", FREE, 0.06),
        ("gconv, lconv, ...", "one filter, also turned", "more symmetries", OTHER, 0.06),
    ]
    parts = [
        text(60, 28, "input", ground.quiet, text_anchor="middle"),
        cells(25, 102, 12, [[0.25] * 6 for _ in range(6)], ground.quiet),
        text(700, 28, "output", ground.quiet, text_anchor="middle"),
        cells(664, 102, 12, [[0.25] * 6 for _ in range(6)], ground.quiet),
        text(308, 28, "paths: linear maps", ground.quiet, text_anchor="middle"),
        text(522, 28, "prior variance", ground.quiet, text_anchor="middle"),
        f'<circle cx="620" cy="137" r="13" fill="none" stroke="{ground.ink}" stroke-width="1.5"/>',
        text(620, 143, "+", ground.ink, 18, text_anchor="middle"),
        arrow("M634 137L658 137", ground.quiet),
    ]
    for i, (name, does, obeys, color, level) in enumerate(rows):
        y = 45 + 65 * i
        parts += [
            arrow(f"M101 137C125 137 125 {y + 27} 148 {y + 27}", ground.quiet),
            box(152, y, 312, 54, "none", stroke=color, stroke_width="1.5", rx="6"),
            _glyph(i, 162, y + 9, color),
            text(212, y + 23, name, ground.ink, 15, font_weight="bold"),
            text(212, y + 42, f"{does}; {obeys}", ground.quiet, 11),
            box(480, y + 22, 84, 10, ground.faint, rx="5"),
            box(480, y + 22, max(10.0, 84 * level), 10, color, rx="5"),
            arrow(f"M572 {y + 27}C592 {y + 27} 590 137 603 137", ground.quiet),
        ]
    words = (
        "The evidence of the training data sets each variance. Zero switches a path off:",
        "this layer has become a convolution.",
    )
    for y, line in zip((262, 282), words, strict=True):
        parts.append(text(380, y, line, ground.ink, 14, text_anchor="middle"))
    title = "A relaxed layer: a convolution, a free path and others add up, each with a variance"
    return page(296, title, parts, ground)


def _glyph(kind: int, x: float, y: float, color: str) -> str:
    """How a path shares its weights over the places of a map."""
    if kind == 1:
        return cells(x, y, 6, FREE_MAP, color)
    turned = [SHIFT, [list(row) for row in zip(*SHIFT[::-1], strict=True)]]
    tiles = [turned[(i + j) % 2 if kind == 2 else 0] for i in range(3) for j in range(3)]
    return "".join(
        cells(x + 12 * (n % 3), y + 12 * (n // 3), 6, tile, color) for n, tile in enumerate(tiles)
    )


# --- What the demo has learned ---


def verdicts(ground: Ground, folder: Path) -> str:
    """Both tasks side by side: an image, the share of each path in each layer, accuracies."""
    figures = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    train, test = demo.load("digits", 0)
    parts = [
        text(
            25, 290, "Bars: share of each path in a layer's effective parameters.", ground.quiet, 12
        ),
        *_legend(ground),
    ]
    for column, task in enumerate(NAMES):
        left = 25 + 375 * column
        images = demo.make_task(task, train, test, 0)[0]
        report = StructureReport.from_json(folder / f"{task}.json")
        parts += [
            text(left, 24, NAMES[task], ground.ink, 16, font_weight="bold"),
            _image(images.x[1, 0].tolist(), left, 40, ground),
            text(left, 150, _label(int(images.y[1]), images.classes), ground.quiet, 12),
            *_bars(report, left + 112, ground),
            *_scores(figures[task], left, ground),
        ]
    title = (
        "Learned paths per layer: convolutions everywhere for the digit, and a free path in the "
    )
    return page(300, title + "last layer for digit and quadrant", parts, ground)


def _label(y: int, classes: int) -> str:
    quadrant, digit = divmod(y, 10)
    return f"label: {digit}" + (f", {QUADRANTS[quadrant]}" if classes > 10 else "")


def _legend(ground: Ground) -> list[str]:
    return [
        *(box(420, 280, 12, 12, CONV), text(438, 290, "conv", ground.ink, 12)),
        *(box(490, 280, 12, 12, FREE), text(508, 290, "ffc, free", ground.ink, 12)),
    ]


def _image(rows: list[list[float]], x: float, y: float, ground: Ground) -> str:
    low, high = min(map(min, rows)), max(map(max, rows))
    shades = [[(value - low) / (high - low) for value in row] for row in rows]
    frame = box(x - 1, y - 1, 98, 98, "none", stroke=ground.quiet)
    return frame + cells(x, y, 6, shades, ground.ink)


def _bars(report: StructureReport, x: float, ground: Ground) -> list[str]:
    parts: list[str] = []
    for row, found in enumerate(report):
        y, at = 40 + 27 * row, x + 52.0
        parts.append(text(x, y + 14, f"layer {row + 1}", ground.quiet, 12))
        for (name, path), color in zip(found.paths.items(), (CONV, FREE), strict=True):
            width = 120 * path.relative_effective_params
            parts.append(box(at, y, width, 19, color))
            if 0.1 < path.relative_effective_params < 0.95:
                share = f"{path.relative_effective_params:.0%}"
                ink = "#FFFFFF" if name == "conv" else "#1F1F1F"
                parts.append(text(at + width / 2, y + 14, share, ink, 11, text_anchor="middle"))
            at += width
        parts.append(text(x + 180, y + 14, found.verdict, ground.ink, 13))
    return parts


def _scores(rows: dict[str, dict[str, float]], x: float, ground: Ground) -> list[str]:
    parts = [text(x, 184, "test accuracy", ground.quiet, 12)]
    for i, (name, words) in enumerate(ROWS.items()):
        y, accuracy = 192 + 25 * i, rows[name]["accuracy"]
        weight = "bold" if name == "learned" else "normal"
        parts += [
            text(x, y + 14, words, ground.ink, 13, font_weight=weight),
            box(x + 112, y + 2, 180, 15, ground.faint, rx="3"),
            box(x + 112, y + 2, 180 * accuracy, 15, ground.quiet, rx="3"),
            text(x + 300, y + 14, f"{accuracy:.1%}", ground.ink, 13, font_weight=weight),
        ]
    return parts


def main(folder: Path) -> None:
    """Write all pictures beside this file."""
    for name, ground in GROUNDS.items():
        for picture, drawn in (("layer", layer(ground)), ("verdicts", verdicts(ground, folder))):
            path = Path(__file__).parent / f"{picture}-{name}.svg"
            path.write_text(drawn, encoding="utf-8")
            print(path, f"{path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo"))

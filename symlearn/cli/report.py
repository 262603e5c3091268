"""``symlearn report``: show or convert the report of a saved result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from symlearn.cli.arguments import Commands
from symlearn.report import StructureReport
from symlearn.verdict import SeedsReport
from symlearn.verdict.seeds import SUMMARY

FORMATS = ("text", "markdown", "json", "html")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("report", help="show or convert the report of a saved result")
    parser.add_argument(
        "result", help="folder of a saved result or of several seeds, or a report's JSON file"
    )
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--out", help="file to write instead of the terminal")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    """Print or write the report in the format asked for."""
    path = Path(options.result)
    if (path / SUMMARY).is_file():
        seeds = SeedsReport.from_json(path / SUMMARY)
        return _show({"text": seeds.to_text, "json": seeds.to_json}, options, console)
    report = StructureReport.from_json(path / "report.json" if path.is_dir() else path)
    writers = {
        "text": report.to_text,
        "markdown": report.to_markdown,
        "json": report.to_json,
        "html": report.to_html,
    }
    return _show(writers, options, console)


def _show(
    writers: Mapping[str, Callable[[str | None], str]],
    options: argparse.Namespace,
    console: Console,
) -> int:
    if options.format not in writers:
        raise ValueError(
            f"--format is {options.format}; several seeds are reported as {' or '.join(writers)}"
        )
    text = writers[options.format](options.out)
    if options.out is None:
        console.print(text, markup=False)
    else:
        console.print(f"wrote {options.out}", markup=False)
    return 0

"""``symlearn report``: show or convert a saved report."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from symlearn.audit import Audit
from symlearn.cli.answers import answer
from symlearn.cli.arguments import DONE, Commands, command
from symlearn.cli.console import Console
from symlearn.cli.outputs import check_file
from symlearn.fit.saving import REPORT
from symlearn.propose import Proposals
from symlearn.report import StructureReport
from symlearn.report.document import Document
from symlearn.report.files import deliver, fetch
from symlearn.verdict import Location, SeedsReport
from symlearn.verdict.seeds import SUMMARY

FORMATS = ("text", "markdown", "json", "html")
KINDS: dict[str, type[Document]] = {
    kind.FORMAT: kind for kind in (StructureReport, SeedsReport, Location, Proposals, Audit)
}


def add(commands: Commands) -> None:
    """Add the command to the program."""
    parser = command(
        commands,
        "report",
        run,
        about="show or convert the report of a saved result",
        examples={
            "symlearn report run/": "the tables and verdicts of a fit",
            "symlearn report run/ --format html --out report.html": "as a page",
            "symlearn report run/ --quiet": "a line per layer: its name and its verdict",
        },
    )
    parser.add_argument(
        "result",
        metavar="RESULT",
        help="folder of a saved result or of several seeds, or the JSON file of a report, an "
        "audit, proposals or a location",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default text")
    parser.add_argument("--out", metavar="FILE", help="file to write instead of the terminal")


def run(options: argparse.Namespace, console: Console) -> int:
    """Print or write the report in the format asked for."""
    check_file(options.out, "--out")
    document = _read(Path(options.result))
    writers: Mapping[str, Callable[[], str]] = {"text": document.to_text, "json": document.to_json}
    if isinstance(document, StructureReport):
        writers = {**writers, "markdown": document.to_markdown, "html": document.to_html}
    elif isinstance(document, SeedsReport):
        best = _best(Path(options.result))
        writers = {**writers, "html": lambda: document.to_html(best=best)}
    if options.format not in writers:
        raise ValueError(
            f"--format is {options.format}; {options.result} is shown as {' or '.join(writers)}"
        )
    if options.out is None and options.format == "text":
        console.report(document)
        return DONE
    text = deliver(writers[options.format](), options.out)
    if options.out is None:
        console.say(text)
    written = [] if options.out is None else [options.out]
    console.finish(document.to_json(), answer(document), written)
    return DONE


def _best(folder: Path) -> StructureReport | None:
    """Of the fits beside a report of several seeds, that of the largest evidence."""
    found = [StructureReport.from_json(path) for path in sorted(folder.glob(f"seed-*/{REPORT}"))]
    return max(found, key=lambda report: report.log_evidence, default=None)


def _read(path: Path) -> Document:
    """The report in a file, or that of a result in a folder."""
    if path.is_dir():
        several = path / SUMMARY
        single = path / REPORT
        if not (several.is_file() or single.is_file()):
            raise FileNotFoundError(f"{path} is not a saved result: it has no {REPORT}")
        path = several if several.is_file() else single
    try:
        found = json.loads(fetch(path))
    except json.JSONDecodeError:
        found = None
    name = str(found.get("format")) if isinstance(found, dict) else ""
    return KINDS.get(name, StructureReport).from_json(path)

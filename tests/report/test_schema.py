"""The JSON format: lossless, versioned, strict."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symlearn.report import (
    LayerStructure,
    PathStructure,
    Removal,
    StructureReport,
    SymmetryCheck,
)
from symlearn.report.background import CoveredParameters, Epoch, Picture
from symlearn.report.schema import FORMAT
from tests.report import samples

SCHEMA_DOC = Path(__file__).parents[2] / "docs" / "reference" / "report-schema.md"

numbers = st.floats(allow_nan=True, allow_infinity=True)
paths = st.builds(
    PathStructure, *[numbers] * 2, st.integers(), *[numbers] * 5, st.booleans()
)  # fmt: skip
layers = st.builds(
    LayerStructure,
    st.text(),
    st.dictionaries(st.text(), paths, min_size=1, max_size=3),
    st.text(),
    st.floats(0.0, 1.0) | st.just(math.nan),
)
reports = st.builds(
    StructureReport,
    st.lists(layers, max_size=3, unique_by=lambda layer: layer.name).map(tuple),
    st.dictionaries(st.text(), paths, max_size=2),
    numbers,
    st.integers(),
    st.integers(),
    numbers,
    st.text(),
    st.dictionaries(st.text(), st.none() | st.text() | numbers | st.integers(), max_size=4),
)


@given(reports)
def test_round_trip_is_exact(report: StructureReport) -> None:
    # repr tells apart nan, inf, -0.0, 1 and 1.0, which == does not.
    assert repr(StructureReport.from_json(report.to_json())) == repr(report)


@pytest.mark.parametrize("make", [samples.digit, samples.quadrant, samples.awkward, samples.whole])
def test_round_trip_through_a_file(make: Callable[[], StructureReport], tmp_path: Path) -> None:
    report = make()
    text = report.to_json(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == text
    for source in (tmp_path / "r.json", str(tmp_path / "r.json"), text):
        assert repr(StructureReport.from_json(source)) == repr(report)


def test_a_whole_number_may_stand_for_a_float() -> None:
    body = json.loads(samples.digit().to_json())
    body["log_evidence"] = -1234
    assert StructureReport.from_json(json.dumps(body)).log_evidence == -1234.0


def test_the_text_is_standard_json_with_the_format_first() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    body = json.loads(samples.awkward().to_json(), parse_constant=refuse)
    assert next(iter(body.items())) == ("format", FORMAT)
    assert body["log_evidence"] is None
    assert body["effective_params"] == "inf"
    assert body["meta"]["nan"] == {"float": "nan"}
    assert body["meta"]["text"] == "inf"


def test_every_truncation_is_an_error() -> None:
    text = samples.digit().to_json().rstrip()
    for length in range(len(text)):
        with pytest.raises(ValueError, match="not a report"):
            StructureReport.from_json(text[:length])


def test_a_truncation_names_the_last_field() -> None:
    text = samples.digit().to_json()
    with pytest.raises(ValueError, match="truncated.*after the field 'weight_norm_sq'"):
        StructureReport.from_json(text[: text.index('"weight_norm_sq"') + 18])


def _change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: Any) -> None:
        for key in keys[:-1]:
            body = body[key]
        body[keys[-1]] = to

    return change


def _drop(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def drop(body: Any) -> None:
        for key in keys[:-1]:
            body = body[key]
        del body[keys[-1]]

    return drop


CONV = ("layers", 1, "paths", "conv")
DAMAGE = [
    (_drop("format"), "'format' is missing"),
    (_change("format", to="symlearn.report/2"), r"format: .*report/1.*report/2"),
    (_change("format", to=None), "format: "),
    (_drop("objective"), "objective: missing"),
    (_drop("layers", 0, "verdict"), r"layers\[0\]\.verdict: missing"),
    (_drop(*CONV, "on"), r"layers\[1\]\.paths\['conv'\]\.on: missing"),
    (_change("colour", to=1), "colour: unknown field"),
    (_change(*CONV, "extra", to=1), r"paths\['conv'\]\.extra: unknown field"),
    (_change("layers", to={}), "layers: needs an array"),
    (_change("layers", 0, to=3), r"layers\[0\]: needs an object"),
    (_change("layers", 0, "paths", to=[]), r"layers\[0\]\.paths: needs an object"),
    (_change("layers", 0, "paths", to={}), r"layers\[0\]: .*at least one path"),
    (_change("layers", 0, "agreement", to=2.0), r"layers\[0\]: .*agreement"),
    (_change("layers", 0, "name", to="conv2"), "occur twice: conv2"),
    (_change("heads", to=None), "heads: needs an object"),
    (_change("n_data", to=2000.0), "n_data: needs a whole number"),
    (_change("n_data", to=True), "n_data: needs a whole number"),
    (_change("objective", to=None), "objective: needs a string"),
    (_change("meta", "x", to=[1]), r"meta\['x'\]: needs a string"),
    (_change("meta", "x", to={"float": "infinity"}), r"meta\['x'\]: needs"),
    (_change("meta", "x", to={"float": []}), r"meta\['x'\]: needs"),
    (_change(*CONV, "on", to=1), r"\.on: needs true or false"),
    (_change(*CONV, "output_share", to="0.5"), r"\.output_share: needs a finite number"),
    (_change(*CONV, "output_share", to=True), r"\.output_share: needs a finite number"),
    (_change(*CONV, "output_share", to="nan"), r"\.output_share: needs a finite number"),
    (_change(*CONV, "output_share", to=10**400), r"\.output_share: "),
    (_change("pictures", 0, "pixels", to="!"), r"pictures\[0\]: .*not base64"),
    (_change("pictures", 0, "width", to=7), r"pictures\[0\]: .*no whole number of maps"),
    (_change("pictures", 0, "width", to=0), r"pictures\[0\]: .*no whole number of maps"),
    (_change("pictures", 0, "kind", to="map"), r"pictures\[0\]: .*kind is one of"),
    (_change("pictures", 0, "largest", to=None), r"pictures\[0\]: largest is a finite"),
    (_change("config", "step", to=[1]), r"config\['step'\]: needs a string"),
    (_change("environment", "torch", to=2), r"environment\['torch'\]: needs a string"),
    (_change("history", 0, "grown", to="x"), r"history\[0\]\.grown: needs an array"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_named(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    body = json.loads(samples.whole().to_json())
    damage(body)
    with pytest.raises(ValueError, match=message):
        StructureReport.from_json(json.dumps(body))


def test_all_problems_at_once() -> None:
    body = json.loads(samples.digit().to_json())
    del body["n_data"]
    body["layers"][0]["verdict"] = 1
    body["heads"]["classifier.weight"]["on"] = "yes"
    with pytest.raises(ValueError, match=r"(?s)n_data.*layers\[0\]\.verdict.*heads.*\.on"):
        StructureReport.from_json(json.dumps(body))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated or damaged"),
        ("{}", "'format' is missing"),
        ('{"format": NaN}', "NaN is not JSON"),
        ('{"format": "a", "format": "b"}', "twice in one object: format"),
        (f'{{"format": "{FORMAT}", "log_evidence": 1e999}}', "log_evidence: needs a finite"),
        ('{"format": ' + "[" * 100_000, "not a report"),
    ],
)
def test_foreign_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StructureReport.from_json(text)


def test_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither an existing file nor JSON text"):
        StructureReport.from_json(tmp_path / "missing.json")
    with pytest.raises(FileNotFoundError, match="neither an existing file nor JSON text"):
        StructureReport.from_json("no such report")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match="'format' is missing"):
        StructureReport.from_json(tmp_path / "list.json")
    (tmp_path / "binary.json").write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        StructureReport.from_json(tmp_path / "binary.json")


def test_the_documented_example_is_a_report() -> None:
    blocks = re.findall(r"```json\n(.*?)```", SCHEMA_DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    report = StructureReport.from_json(blocks[0])
    assert repr(StructureReport.from_json(report.to_json())) == repr(report)
    assert report["features.0"].verdict == "conv"


@pytest.mark.parametrize(
    "record",
    [
        *[StructureReport, LayerStructure, PathStructure, SymmetryCheck, Removal],
        *[Epoch, CoveredParameters, Picture],
    ],
)
def test_every_field_is_documented(record: type) -> None:
    text = SCHEMA_DOC.read_text(encoding="utf-8").replace("`, `", "` | `")
    assert [f for f in record.__dataclass_fields__ if f"| `{f}` |" not in text] == []  # type: ignore[attr-defined]

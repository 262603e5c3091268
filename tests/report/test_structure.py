"""The records: their laws, look-up and what they refuse."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symlearn.report import LayerStructure, StructureReport, relative_shares
from tests.report import samples


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_relative_shares_sum_to_one(values: list[float]) -> None:
    shares = relative_shares({str(index): value for index, value in enumerate(values)})
    total = 1.0 if math.fsum(values) > 0.0 else 0.0
    assert math.fsum(shares.values()) == pytest.approx(total, abs=1e-9)
    assert all(0.0 <= share <= 1.0 for share in shares.values())


def test_relative_shares_do_not_hide_a_nan() -> None:
    assert all(math.isnan(x) for x in relative_shares({"conv": 0.5, "ffc": math.nan}).values())


def test_a_judged_layer_has_shares_and_a_verdict() -> None:
    layer = samples.layer("conv1", ffc=0.25)
    shares = {name: path.relative_effective_params for name, path in layer.paths.items()}
    assert shares == {"conv": 0.75, "ffc": 0.25}
    assert layer.verdict == "conv+ffc"
    assert samples.layer("conv1", ffc=0.25, agreement=0.4).verdict == "undecided"


def test_a_step_is_judged_by_shares_alone() -> None:
    """Gains at single steps straddle the least one: the last steps must not disagree for it."""
    layer = samples.layer("conv1", ffc=0.75)
    paths = {key: dataclasses.replace(path, evidence_gain=0.0) for key, path in layer.paths.items()}
    paths["ffc"] = dataclasses.replace(paths["ffc"], evidence_gain=500.0)
    judged = LayerStructure.of("conv1", paths, 1.0)
    assert judged.verdict == "ffc"
    assert judged.by_shares == "conv+ffc"


def test_look_up() -> None:
    report = samples.digit()
    assert report["conv2"] is report.layers[1]
    assert "conv2" in report
    assert "conv9" not in report
    assert list(report) == list(report.layers)
    with pytest.raises(KeyError, match="no layer named 'conv9'.*conv1, conv2, conv3"):
        report["conv9"]


def test_records_are_frozen() -> None:
    path = samples.path()
    with pytest.raises(dataclasses.FrozenInstanceError):
        path.on = False  # type: ignore[misc]


class Scalar:
    """What a forgotten `.item()` leaves in a field."""

    def __float__(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prior_precision", Scalar()),
        ("prior_precision", "1"),
        ("prior_precision", True),
        ("prior_precision", None),
        ("n_params", 1.0),
        ("on", 1),
    ],
)
def test_fields_take_plain_values(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"PathStructure\.{field} takes a plain"):
        dataclasses.replace(samples.path(), **{field: value})


def test_layers_and_reports_check_their_fields() -> None:
    path, report = samples.path(), samples.digit()
    with pytest.raises(TypeError, match=r"LayerStructure\.paths\['conv'\] takes"):
        LayerStructure("conv1", {"conv": 1.0}, "conv", 1.0)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"'conv1'.*at least one path"):
        LayerStructure("conv1", {}, "off", 1.0)
    with pytest.raises(ValueError, match=r"'conv1': agreement.*got 1\.5"):
        LayerStructure("conv1", {"conv": path}, "conv", 1.5)
    for field, value in {"meta": {"shape": (1, 2)}, "layers": list(report.layers)}.items():
        changes: dict[str, Any] = {field: value}
        with pytest.raises(TypeError, match=rf"StructureReport\.{field}.* takes"):
            dataclasses.replace(report, **changes)


def test_layer_names_differ() -> None:
    layer = samples.layer("conv1")
    with pytest.raises(ValueError, match="occur twice: conv1"):
        samples.report(layer, layer)


def test_a_report_needs_no_layers() -> None:
    empty = StructureReport((), {}, math.nan, 0, 0, 0.0, "evidence", {})
    assert "Structure report" in str(empty)
    assert empty.to_html()
    assert empty.to_markdown()
    assert empty.plot()
    with pytest.raises(KeyError, match="its layers are: none"):
        empty["conv1"]

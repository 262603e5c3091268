"""The studies of the paper's tables: settings, images, figures, claims, and the full command."""

from __future__ import annotations

import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import symlearn
from benchmarks import study_table1, study_table2, study_table3
from benchmarks.support import tables
from benchmarks.support.study import Row
from benchmarks.support.tables import Scale
from symlearn.relaxed import relaxed_layers
from tests.datasets.made import dots, numbered, write_idx

pytestmark = pytest.mark.core
SMALL, FULL = Scale(n=100, epochs=3, width=4), Scale(n=0, epochs=9, width=10, published=True)


def given(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Scale, str]:
    monkeypatch.setattr(sys, "argv", ["study", *words])
    return tables.command("study", "Claim: it is said.", SMALL, FULL)[1:]


def test_results_of_other_settings_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch) == (SMALL, "study")
    assert given(monkeypatch, "--n", "100")[1] == "study"
    scale, name = given(monkeypatch, "--n", "7", "--width", "1")
    assert (scale.n, scale.epochs, scale.width, name) == (7, 3, 1, "study_n7_width1")
    scale, name = given(monkeypatch, "--full", "--device", "cpu", "--epochs", "2")
    assert (scale.n, scale.epochs, scale.published, name) == (0, 2, True, "study_full_epochs2")
    assert scale.config("map", 0).optimiser == "adam"


def test_full_settings_need_a_gpu_or_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--device cpu"):
        given(monkeypatch, "--full")


def test_images_are_framed_varied_reduced_and_standardised() -> None:
    pair = numbered(6, size=28), numbered(4, size=28)
    train, test = tables.framed(pair, 16)
    assert train.x.shape[1:] == test.x.shape[1:] == (1, 16, 16)
    assert float(train.x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(train.x.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert float(test.x.mean()) != pytest.approx(0, abs=1e-5)
    same = dots(5, 28), dots(5, 28)
    moved = tables.framed(same, tables.FRAME, "translated", seed=3)
    at = [part.x.flatten(1).argmax(1) for part in moved]
    assert len(set(at[0].tolist())) > 1
    assert at[0].tolist() != at[1].tolist()


def test_weight_steps_see_flips_and_shifts_and_the_evidence_does_not() -> None:
    net = nn.Sequential(nn.Identity())
    tables.augment(net, seed=0)
    x = torch.zeros(200, 1, 32, 32)
    x[:, :, 16, 20] = 1
    assert net.eval()(x) is x
    where = net.train()(x).flatten(1).argmax(1)
    rows, columns = where // 32 - 16, where % 32
    assert set(rows.tolist()) == set(range(-4, 5))
    assert set(columns.tolist()) == {*range(16, 25), *range(7, 16)}


def test_all_paths_begin_at_full_size() -> None:
    cnn = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    paths = {"0": ("conv", "ffc"), "2": "conv"}
    net = symlearn.wrap(cnn, torch.randn(2, 1, 8, 8), paths=paths)
    several, one = relaxed_layers(net).values()
    before = one.path("conv").tested().clone()
    assert not several.path("ffc").tested().any()
    tables.full_size(net, seed=0)
    assert several.path("ffc").tested().any()
    assert torch.equal(one.path("conv").tested(), before)


def row(accuracy: float, seed: int = 0, n_test: int = 10_000, **what: Any) -> Row:
    return {"accuracy": accuracy, "seed": seed, "n_test": n_test, **what}


def test_difference_pairs_seeds_and_says_its_error() -> None:
    ours, theirs = [row(0.92, 0), row(0.94, 1), row(0.1, 2)], [row(0.93, 1), row(0.90, 0)]
    mean, text = tables.difference(ours, theirs)
    assert mean == pytest.approx(1.5)
    each = 100 * ((0.92 * 0.08 + 0.9 * 0.1) ** 0.5 + (0.94 * 0.06 + 0.93 * 0.07) ** 0.5) / 200
    assert text == f"+1.50 ± 0.50 points (seeds: +2.00, +1.00, each ± {each:.2f})"
    with pytest.raises(ValueError, match="no seed has both"):
        tables.difference([row(0.9, 0)], [row(0.9, 1)])


def learned(task: str, accuracy: float, verdicts: list[str]) -> list[Row]:
    """Rows of Table 1 whose better strict model has an accuracy of 0.9."""
    layers = [{"verdict": v, "paths": {"conv": {}, "ffc": {}}} for v in verdicts]
    what = {"source": "mnist", "task": task, "layers": layers}
    rows = [
        row(0.9 if (model, objective) == ("conv", "map") else 0.5, **what)
        | {"model": model, "objective": objective}
        for model in ("fc", "conv")
        for objective in tables.OBJECTIVES
    ]
    return [*rows, row(accuracy, **what) | {"model": "ffc+conv", "objective": "evidence"}]


@pytest.mark.parametrize(
    ("task", "accuracy", "verdicts", "holds"),
    [
        ("digit", 0.896, ["conv", "conv"], [True, True]),
        ("digit", 0.894, ["conv", "conv+ffc"], [False, False]),
        ("quadrant", 0.95, ["conv", "ffc"], [True, True]),
        ("quadrant", math.nan, ["conv", "conv"], [False, False]),
    ],
)
def test_table_1_judges_by_its_rows(
    task: str, accuracy: float, verdicts: list[str], holds: list[bool]
) -> None:
    claims = list(study_table1.claims(learned(task, accuracy, verdicts)))
    assert [claim.holds for claim in claims] == holds
    assert "map CONV" in claims[0].measured
    assert list(study_table1.claims(learned(task, accuracy, verdicts)[1:])) == []


def several(data: str, gconv: float, evidence: float = -1.0) -> Row:
    """A row of Table 3 with one relaxed layer and a head."""
    shares = {"gconv": gconv, "conv": 1 - gconv, "ffc": 0.0}
    paths = {name: {"relative_effective_params": share} for name, share in shares.items()}
    layers = [{"paths": paths}, {"paths": {"conv": {"relative_effective_params": 1.0}}}]
    what = {"data": data, "model": study_table3.SEVERAL, "objective": "evidence"}
    return row(0.9, **what, layers=layers, log_evidence_per_sample=evidence)


@pytest.mark.parametrize(("turned", "holds"), [(0.6, True), (0.5, False), (math.nan, False)])
def test_table_3_judges_gconvs_share(turned: float, holds: bool) -> None:
    rows = [several("mnist-upright", 0.5), several("mnist-rotated", turned)]
    assert [claim.holds for claim in study_table3.claims(rows)] == [holds, holds]
    assert study_table3.pooled(rows[:1], "gconv") == [50.0]


def test_table_3_judges_the_seed_with_the_largest_evidence() -> None:
    rows = [several("mnist-upright", 0.5), several("mnist-rotated", 0.9, evidence=-1.1)]
    rows += [several("mnist-upright", 0.9, evidence=-1.2), several("mnist-rotated", 0.4)]
    of_all, of_best = study_table3.claims(rows)
    assert not of_all.holds
    assert (of_best.measured, of_best.holds) == ("50 % upright, 40 % rotated", False)


def test_table_3_judges_the_order_of_table_7() -> None:
    accuracy = {"conv": 0.6, "gconv-pointwise": 0.7, "gconv-full": 0.65}
    rows = [
        row(value, data="mnist-rotated", model=model, objective="map")
        for model, value in accuracy.items()
    ]
    assert [claim.holds for claim in study_table3.claims(rows)] == [True, False]


def few_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 and both MNISTs in the formats they are published in, with a few images."""
    for name, count in {"CIFAR": 5, "MNIST": 4}.items():
        monkeypatch.setattr(f"symlearn.datasets.sources._{name}_TRAIN", [count] * 10)
        monkeypatch.setattr(f"symlearn.datasets.sources._{name}_TEST", [1] * 10)
    random = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    for part, n in {"train": 40, "t10k": 10}.items():
        pixels = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(root / "mnist" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(root / "mnist" / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)


@pytest.mark.parametrize(
    ("study", "run"),
    [
        (study_table2, "cifar10_sconv-omega_evidence_0"),
        pytest.param(study_table1, "mnist_quadrant_ffc+conv_evidence_0", marks=pytest.mark.slow),
        pytest.param(study_table3, "cifar10-rotated_ffc+conv+gconv_map_0", marks=pytest.mark.slow),
    ],
)
def test_the_full_command_runs_on_a_handful_of_samples(
    study: Any, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_images(tmp_path, monkeypatch)
    sizes = ["--n", "20", "--epochs", "1", "--width", "1"]
    words = ["--full", "--device", "cpu", "--root", str(tmp_path), "--seeds", "0", "--only", run]
    monkeypatch.setattr(sys, "argv", ["study", *words, *sizes, "--out", str(tmp_path / "out")])
    study.main()
    name = f"{study.__name__.rpartition('study_')[2]}_full_n20_epochs1_width1"
    found = json.loads((tmp_path / "out" / name / f"{run}.json").read_text())
    assert (found["n_train"], found["n_test"], found["epochs"]) == (20, 10, 1)
    assert math.isfinite(found["nll"])
    page = (tmp_path / "out" / f"{name}.md").read_text()
    assert "20 training images, 10 test images" in page
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000

"""The proposal table: evidence and invariances side by side, as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.audit import Candidate, linear_invariances
from symlearn.paths import PATHS, Conv, as_specs
from symlearn.propose import Proposals, in_words, kept_by, signature

pytestmark = pytest.mark.core


class Radial(nn.Module):
    """A function of how much content lies how far from the centre."""

    def __init__(self) -> None:
        super().__init__()
        near = torch.arange(12.0) - 5.5
        distance = (near.square().unsqueeze(1) + near.square()) / 20
        self.conv = nn.Conv2d(1, 1, 1)
        self.register_buffer("rings", torch.stack([(-k * distance).exp() for k in (1, 2, 4)]))

    def forward(self, x: Tensor) -> Tensor:
        rings: Tensor = self.get_buffer("rings")
        return torch.einsum("nhw,khw->nk", self.conv(x)[:, 0].tanh(), rings)


def bumps(n: int) -> tuple[Tensor, Tensor]:
    """Images of smooth content anywhere, labelled by where most of it lies."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 1, 12, 12, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 3, 1, 1)
    smooth = 3 * nn.functional.avg_pool2d(smooth, 3, 1, 1)
    left = smooth[:, 0, :, :6].sum((1, 2)) > smooth[:, 0, :, 6:].sum((1, 2))
    return smooth, left.long()


def test_both_kinds_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = bumps(150)
    table = symlearn.propose(Radial(), (x, y), draws=19, likelihood="categorical", progress=False)
    evidence = [row for row in table.rows if row.because == "evidence"]
    assert [row.gain for row in evidence] == sorted((r.gain for r in evidence), reverse=True)
    screened = symlearn.screen(Radial(), (x, y), paths=("ffc",))
    assert {row.path for row in evidence} | set(table.left_out) == set(PATHS)
    assert {(row.layer, row.path) for row in screened} <= {(r.layer, r.path) for r in evidence}
    for row in evidence:
        assert row.proposed == (row.gain > 0)
        assert row.ratio != row.ratio  # no ratio
    directions = [row for row in table.rows if row.because == "invariance"]
    assert len(directions) == 6
    best = directions[0]
    assert best.proposed
    assert best.direction.startswith("rotation")
    assert best.path.startswith("gconv")
    assert best.p_value == 1 / 20
    assert best in table.proposed
    text = str(table)
    assert "not tested: gconv: " in text
    assert "rotation" in text
    assert "nan" not in text
    assert table.to_json(tmp_path / "p.json") == (tmp_path / "p.json").read_text()
    again = Proposals.from_json(tmp_path / "p.json")
    assert again.to_json() == table.to_json()
    assert str(again) == text
    with pytest.raises(ValueError, match=r"symlearn.proposals/1"):
        Proposals.from_json('{"format": "symlearn.report/1"}')


class Minkowski(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.square() * torch.tensor([1.0, -1.0, -1.0]).to(x)).sum(1, keepdim=True)


def test_vectors_are_asked_for_matrices() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    table = symlearn.propose(
        Minkowski(), (x, x.sum(1)), likelihood="gaussian", draws=19, progress=False
    )
    (row,) = table.rows
    assert (row.direction, row.proposed) == ("3 matrices: SO(2, 1)", True)
    assert row.path == "emlp"
    (reason,) = table.left_out.values()
    assert "no nn.Conv" in reason
    random = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    plain = symlearn.propose(random, (x, torch.arange(200) % 4), draws=19, progress=False)
    (row,) = plain.rows
    assert (row.direction, row.proposed) == ("0 matrices", False)
    found = linear_invariances(nn.Sequential(Norm()), x, draws=19)
    assert signature(found) == ": SO(3)"


class Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.norm(dim=1, keepdim=True)


def candidate(**cosines: float) -> Candidate:
    return Candidate(cosines, cosines, 0.1, 0.1, 0.1)


def test_directions_in_words_and_paths() -> None:
    shift = candidate(translation_x=-0.9, rotation=0.1, scaling=0.3)
    assert (in_words(shift), kept_by(shift)) == ("translation_x -0.90", ("conv",))
    mixed = candidate(translation_x=0.1, rotation=0.6, scaling=-0.7, hyperbolic=0.2)
    assert in_words(mixed) == "scaling -0.70, rotation +0.60, hyperbolic +0.20"
    assert kept_by(mixed) == ("lconv", "power")
    assert kept_by(candidate(rotation=0.99)) == ("gconv", "symconv", "lconv", "power:rotation")
    assert kept_by(candidate(scaling=0.99)) == ("lconv", "power:scaling")
    assert kept_by(candidate(mine=0.99)) == ("lconv", "power")
    for directions in (shift, mixed, candidate(scaling=0.99), candidate(rotation=0.99)):
        assert as_specs(kept_by(directions))  # all of them are paths


def test_bad_input_is_an_error() -> None:
    x, y = bumps(20)
    with pytest.raises(ValueError, match=r"outputs \[N, K\]"):
        symlearn.propose(nn.Conv2d(1, 2, 3), (x, y))
    with pytest.raises(ValueError, match="give more draws"):
        symlearn.propose(Radial(), (x, y), draws=3)
    with pytest.raises(ValueError, match="unknown paths"):
        symlearn.propose(Radial(), (x, y), paths="convv", draws=19)
    with pytest.raises(ValueError, match="NaN"):
        symlearn.propose(Radial(), (x * float("nan"), y), draws=19)


def test_a_path_of_your_own_is_proposed_too() -> None:
    class Mine(Conv):
        name = "mine"

    x, y = bumps(40)
    with patch.dict(PATHS, {"conv": Conv, "mine": Mine}, clear=True):
        table = symlearn.propose(Radial(), (x, y), draws=19, progress=False)
    names = {row.path for row in table.rows if row.because == "evidence"}
    assert "mine" in names | set(table.left_out)

"""Relaxed perceptrons: equivariant while free paths are off, and verdicts that follow the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import symlearn
from symlearn.datasets import SYMMETRIES, VectorTask, twist
from symlearn.emlp import assert_equivariant
from symlearn.fit.history import falls
from symlearn.groups import SO, SU, O, Scalar, T, V, embedded
from symlearn.relaxedmlp import _largest

pytestmark = pytest.mark.core

VERDICTS = {"exact": "emlp", "approximate": "emlp+fc", "misspecified": "fc"}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SYMLEARN_CACHE_DIR", "")
    yield


def fitted(task: VectorTask, net: torch.nn.Module, **options: object) -> symlearn.FitResult:
    config = symlearn.FitConfig(
        **{  # type: ignore[arg-type]
            **{"epochs": 100, "likelihood": "gaussian", "noise": 0.3, "batch_size": 50},
            **{"learning_rate": 0.02, "progress": False, **options},
        }
    )
    return symlearn.fit(net, task.scaled().pair, config)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_it_is_equivariant_until_a_free_path_is_on(depth: int) -> None:
    net = symlearn.relaxed_mlp(2 * V + 1, T(2) + V, O(3), width=4 + 2 * V + T(2), depth=depth)
    assert len(net) == depth + 1
    assert_equivariant(net, (2 * V + 1)(O(3)), (T(2) + V)(O(3)), tolerance=1e-4)
    assert float(net(torch.randn(5, 7)).detach().abs().max()) > 1e-3
    last = net[depth].layer
    last.path("fc").reset_parameters(torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(net, (2 * V + 1)(O(3)), (T(2) + V)(O(3)))
    last.path("fc").switch_off()
    assert_equivariant(net, (2 * V + 1)(O(3)), (T(2) + V)(O(3)), tolerance=1e-4)


def test_starts_and_paths() -> None:
    fresh = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1, start="fresh")
    strict = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1)
    free = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1, paths=("fc",))

    def present(net: torch.nn.Sequential) -> list[list[str]]:
        return [
            [name for name, path in block.layer.named_paths().items() if path.contributes()]
            for block in net
        ]

    assert present(fresh) == [["emlp", "fc"]] * 2
    assert present(strict) == [["emlp"]] * 2
    assert present(free) == [["fc"]] * 2
    again = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1)
    assert all(map(torch.equal, strict.parameters(), again.parameters()))
    assert all(p.requires_grad for p in strict.parameters())
    fixed = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1, contractions="fixed")
    assert not any(p.requires_grad for p in fixed[0].after.parameters())
    assert torch.equal(fixed[0].after.bilinear.weight, strict[0].after.bilinear.weight)


def test_biases_are_equivariant_in_the_strict_path() -> None:
    net = symlearn.relaxed_mlp(V, V + Scalar, SO(2), depth=0)
    emlp = net[0].layer.path("emlp")
    torch.nn.init.ones_(emlp.tested())
    out = net(torch.zeros(1, 2)).detach()
    assert torch.equal(out[:, :2], torch.zeros(1, 2)) and bool(out[0, 2] != 0)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_the_verdict_follows_the_data(symmetry: str) -> None:
    task = twist(200, symmetry=symmetry)
    net = symlearn.relaxed_mlp(task.rep_in, task.rep_out, task.group, depth=0)
    result = fitted(task, net)
    assert result.report["0.layer"].verdict == VERDICTS[symmetry]
    assert 0.5 < result.likelihood.noise * task.scaled().scale / 0.1 < 1.5


def linear_task(matrix: torch.Tensor, n: int = 200) -> VectorTask:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, len(matrix), generator=draw, dtype=torch.float64)
    y = x @ matrix.T + 0.1 * torch.randn(n, len(matrix), generator=draw, dtype=torch.float64)
    return VectorTask("linear", x, y, V, V, O(len(matrix)), "exact")


TURN = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
ABOUT_Z = embedded(SO(2), 3)
ABOUT_X = embedded(SO(2), 3, at=1)
EYE = torch.eye(3, dtype=torch.float64)
ANY = torch.tensor([[1.0, 2.0, -1.0], [0.5, -2.0, 1.0], [2.0, 0.3, 1.0]], dtype=torch.float64)
NESTED = {
    "all": (2 * EYE, "O(3)", "O(3)"),
    "about z": (TURN, "SO(2) on 0-1 of 3", "SO(2) on 0..1 of 3"),
    "about x": (TURN.roll((1, 1), (0, 1)), "SO(2) on 1-2 of 3", "SO(2) on 1..2 of 3"),
    "none": (ANY, "fc", "none"),
}


@pytest.mark.parametrize("name", NESTED)
def test_groups_offered_together_are_told_apart(name: str) -> None:
    """O(3), and the turns about two axes, which it holds and which compete."""
    matrix, verdict, group = NESTED[name]
    net = symlearn.relaxed_mlp(V, V, O(3), subgroups=[ABOUT_Z, ABOUT_X], depth=0)
    result = fitted(linear_task(matrix), net, epochs=80)
    assert symlearn.supported_groups(result.model, result.report) == {"0.layer": group}
    assert result.report["0.layer"].verdict == verdict


def test_the_largest_group_holds_all_present_paths() -> None:
    net = symlearn.relaxed_mlp(V, V, O(3), subgroups=[embedded(O(2), 3), ABOUT_Z], depth=0)
    specs = net[0].layer.specs[:3]
    larger, smaller, smallest = (spec.name for spec in specs)
    for present, group in (
        ([larger], "O(3)"),
        (["off"], "O(3)"),
        ([larger, smaller], "O(2) on 0..1 of 3"),
        ([smaller, smallest], "SO(2) on 0..1 of 3"),
        ([larger, "fc"], "none"),
    ):
        assert _largest(specs, present) == group


def test_collapsed_and_saved(tmp_path: Path) -> None:
    task = twist(60)
    x, _ = task.pair
    net = symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1)
    result = fitted(task, net, epochs=8)
    plain = result.collapse()
    assert not any(isinstance(m, symlearn.RelaxedLayer) for m in plain.modules())
    torch.testing.assert_close(plain(x), result.model(x))
    result.save(tmp_path)
    with pytest.raises(ValueError, match="pass a relaxed network of the same architecture"):
        symlearn.load(tmp_path)
    again = symlearn.load(tmp_path, symlearn.relaxed_mlp(V, V, SO(2), width=6, depth=1))
    assert torch.equal(again.model(x), result.model(x))


def test_falls() -> None:
    assert falls([1.0, 0.8], 1, 0.9) and not falls([1.0, 0.95], 1, 0.9)
    assert not falls([0.5], 1, 0.9)
    # a density's loss: 10 % of a residual are log 0.9 nats per output, also below zero
    step = math.log(0.9)
    for start in (2.0, -1.0, -50.0):
        assert falls([start, start + 3 * step - 0.01], 1, 0.9, outputs=3)
        assert not falls([start, start + 3 * step + 0.01], 1, 0.9, outputs=3)


def test_names_without_dots() -> None:
    net = symlearn.relaxed_mlp(V, V, O(3), subgroups=[embedded(O(2), 3)], depth=0)
    assert list(net[0].layer.paths) == ["O(3)", "O(2) on 0-1 of 3", "fc"]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"paths are some of \['emlp', 'fc'\]"):
        symlearn.relaxed_mlp(V, V, O(2), paths=("conv",))
    with pytest.raises(ValueError, match="unknown start 'warm'"):
        symlearn.relaxed_mlp(V, V, O(2), start="warm")
    with pytest.raises(ValueError, match="depth"):
        symlearn.relaxed_mlp(V, V, O(2), depth=-1)
    with pytest.raises(ValueError, match=r"bound to SO\(2\), not to O\(2\)"):
        symlearn.relaxed_mlp(V(SO(2)), V, O(2))
    with pytest.raises(TypeError, match="such as 2 . V and a group such as O.3., got str and"):
        symlearn.relaxed_mlp("V", V, O(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got Base and str"):
        symlearn.relaxed_mlp(V, V, "O(2)")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers are real"):
        symlearn.relaxed_mlp(V, V, SU(2), depth=0)
    with pytest.raises(ValueError, match="unknown contractions 'free'"):
        symlearn.relaxed_mlp(V, V, O(2), contractions="free")
    with pytest.raises(ValueError, match=r"unknown paths \['emlp'\].*symlearn.relaxed_mlp\(rep_in"):
        symlearn.wrap(
            torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)),
            torch.ones(1, 1, 4, 4),
            paths=("emlp", "fc"),
        )
    with pytest.raises(ValueError, match="no subgroup"):
        symlearn.relaxed_mlp(V, V, O(2), subgroups=[O(3)])

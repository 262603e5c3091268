"""L-conv: its terms one by one, how they start and vanish, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from symlearn.generators import AffineGenerator, FixedGenerator
from symlearn.generators.search import leading_generator
from symlearn.paths import LConv, as_specs
from symlearn.paths.lconv import LConvPath
from tests.paths.layers import drawn, geometry, samples
from tests.paths.slow import conv_geometry

pytestmark = pytest.mark.core


def test_fresh_terms_share_hes_variance() -> None:
    geo = geometry(8, 16, (6, 6))
    x, _ = samples(geo, 400)
    path = drawn(LConv(3, rank=6, fixed=("rotation",)), geo)
    total = float(path(x).detach().square().mean())
    assert 1.2 < total < 3.0  # 2, as of a convolution
    for term in path.terms.values():
        share = float(term(x.flatten(2)).detach().square().mean())
        assert 0.15 < share < 0.8  # 2/5
    before = path(x)
    path.scale(0.5)
    torch.testing.assert_close(path(x), 0.5 * before, rtol=1e-10, atol=1e-12)


def test_factors_of_a_learned_generator_are_equal_in_norm() -> None:
    geo = geometry(8, 16, (12, 12))
    path = drawn(LConv(1, rank=8, identity=False), geo)
    x, _ = samples(geo, 10)
    norms = [p.norm() for p in path.terms["L1"].weights()]
    for norm in norms:
        torch.testing.assert_close(norm, norms[0], rtol=0.15, atol=0)
    path.propose(x, torch.randn(10, 16, 12, 12, dtype=torch.float64))
    path.seed(torch.randn_like(path.tested()), 1.0)
    seeded = [p.norm() for p in path.terms["L1"].weights()]
    for norm in seeded:
        torch.testing.assert_close(norm, seeded[0])
        torch.testing.assert_close(norm, norms[0], rtol=0.15, atol=0)


def test_the_proposal_finds_a_planted_generator() -> None:
    """Gradients that a rank-two generator with a channel map W explains."""
    geo, rank = geometry(3, 4, (5, 5)), 2
    generator = torch.Generator().manual_seed(2)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    u, v = torch.randn(25, rank, **options), torch.randn(rank, 25, **options)
    w = torch.randn(4, 3, **options)
    x = torch.randn(200, 3, 5, 5, **options)
    g = torch.einsum("sh,ht,dc,nct->nds", u, v, w, x.flatten(2)).reshape(200, 4, 5, 5)
    g = g + 0.5 * torch.randn(g.shape, **options) * g.std()
    path = LConv(2, rank=rank).build(geo).double()
    path.propose(x, g)
    found_u, found_w = path.terms["L1"].U.weight.detach(), path.terms["L1"].W.weight.detach()
    cosine = float((found_w * w).sum() / found_w.norm() / w.norm())
    assert abs(cosine) > 0.98
    left = torch.linalg.qr(u)[0]
    angles = torch.linalg.svdvals(torch.linalg.qr(found_u)[0].T @ left)
    assert float(angles.min()) > 0.97
    assert not path(x).any()


def test_the_proposal_of_full_rank_is_the_best_kronecker_product() -> None:
    """The gradient over pairs of sites, times channels, has a leading singular vector: W."""
    x, g = (torch.randn(50, c, 6, dtype=torch.float64) for c in (3, 2))
    dense = torch.einsum("nds,nct->stdc", g, x).reshape(36, 6)
    values = torch.linalg.svdvals(dense)
    u, w = leading_generator(x, g, 6)
    reached = torch.einsum("nds,dc,nct->st", g, w, x).norm()
    torch.testing.assert_close(w.norm(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(u.T @ u, torch.eye(6, dtype=torch.float64))
    assert float(values[1] / values[0]) < float(reached / values[0]) <= 1 + 1e-12
    assert float(reached / values[0]) > 0.99


def test_among_fixed_generators_the_best_is_tested() -> None:
    geo = geometry(2, 2, (5, 5))
    x, _ = samples(geo, 40)
    w = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    names = ("translation_x", "rotation", "scaling")
    for name in names:
        moved = AffineGenerator(name, (5, 5)).apply(x)
        path = LConv(0, fixed=names).build(geo).double()
        assert path.needs_direction()
        path.propose(x, torch.einsum("dc,nc...->nd...", w, moved))
        assert path.tested() is path.terms[name].W.weight
    single = LConv(0, fixed=("rotation",), identity=False).build(geo).double()
    assert not single.needs_direction()
    single.propose(torch.zeros(0), torch.zeros(0))
    assert single.tested() is single.terms["rotation"].W.weight


def test_parts_name_every_weight_once_and_vanish_one_by_one() -> None:
    geo = geometry(2, 3, (4, 4))
    path = drawn(LConv(2, rank=2, fixed=("rotation",)), geo)
    parts = path.parts()
    assert list(parts) == ["I", "rotation", "L1", "L2"]
    named = [name for names in parts.values() for name in names]
    assert sorted(named) == sorted(n for n, _ in path.named_parameters())
    x, _ = samples(geo, 2)
    whole, gone = path(x), path.terms["L1"](x.flatten(2)).reshape(2, 3, 4, 4)
    path.drop("L1")
    torch.testing.assert_close(path(x), whole - gone)
    assert path.parts_left() == ["I", "rotation", "L2"]
    assert path.contributes()
    path.switch_on()
    assert path.parts_left() == list(parts)


def test_only_the_identity_left_is_a_convolution() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1)
    path = drawn(LConv(2, rank=2), conv_geometry(conv, (4, 5)))
    assert path.filters() is None
    for part in ("L1", "L2"):
        path.drop(part)
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    filters = path.filters()
    assert filters is not None
    torch.testing.assert_close(F.conv2d(x, filters, padding=1), path(x), rtol=0, atol=1e-12)
    path.drop("I")
    assert path.filters() is None


def test_default_rank_fits_small_maps() -> None:
    path = LConv().build(conv_geometry(nn.Conv2d(2, 2, 1), (1, 2)))
    assert isinstance(path, LConvPath)
    assert path.terms["L1"].V.weight.shape == (2, 2)
    assert LConv().build(geometry(1, 1, (5, 5))).terms["L1"].V.weight.shape == (8, 25)


def test_options_go_through_json() -> None:
    matrix = torch.randn(4, 4, dtype=torch.float64) / 3
    spec = LConv(2, 3, ("rotation", FixedGenerator.of("mine", matrix)), identity=False)
    back = LConv(**json.loads(json.dumps(spec.options())))
    assert back == spec
    assert hash(back) == hash(spec)
    again = torch.zeros(4, 4, dtype=torch.float64)
    places, values = back.fixed[1].entries()  # type: ignore[union-attr]
    assert torch.equal(again.index_put_(tuple(places), values), matrix)
    assert as_specs("lconv") == (LConv(),)
    assert LConv(fixed="rotation").fixed == ("rotation",)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LConv(-1), ValueError, "must not be negative"),
        (lambda: LConv(2.5), TypeError, "whole numbers"),  # type: ignore[arg-type]
        (lambda: LConv(2, rank="4"), TypeError, "whole numbers"),  # type: ignore[arg-type]
        (lambda: LConv(2, fixed=None), TypeError, "and a tuple"),  # type: ignore[arg-type]
        (lambda: LConv(0, identity=False), ValueError, "at least one generator"),
        (lambda: LConv(1, rank=0), ValueError, "rank at least 1"),
        (lambda: LConv(fixed=("rotaton",)), ValueError, r"'rotaton'.*'window', 'translation_x'"),
        (lambda: LConv(fixed=("rotation", "rotation")), ValueError, "twice"),
        (lambda: LConv(fixed=(torch.eye(3),)), TypeError, "FixedGenerator"),  # type: ignore[arg-type]
        (
            lambda: LConv(fixed=(FixedGenerator.of("L1", torch.eye(3)),)),
            ValueError,
            r"twice: \['L1'\]",
        ),
        (lambda: FixedGenerator.of("a b", torch.eye(3)), ValueError, "letters, digits"),
        (lambda: FixedGenerator.of("items", torch.eye(3)), ValueError, "nn.ModuleDict"),
        (lambda: FixedGenerator.of("g", torch.ones(3)), ValueError, "matrix over sites"),
        (lambda: FixedGenerator.of("g", [[1.0]]), TypeError, "must be a tensor"),  # type: ignore[arg-type]
        (lambda: FixedGenerator.of("g", torch.eye(2) / 0), ValueError, "NaN, infinite"),
        (lambda: FixedGenerator("g", (2, 2), (2,), (0,), (1.0,)), ValueError, "outside of"),
        (lambda: FixedGenerator("g", (2, 2), (1,), (), (1.0,)), ValueError, "differ in number"),
        (lambda: LConv(rank=17).build(geometry()), ValueError, "rank 17, .* only 16 sites"),
        (
            lambda: LConv(fixed=(FixedGenerator.of("g", torch.eye(9)),)).build(geometry()),
            ValueError,
            r"matrix \[9, 9\], the layer's sites ask for \[16, 16\]",
        ),
        (
            lambda: LConv(fixed=("rotation",)).build(conv_geometry(nn.Conv1d(1, 1, 1), (9,))),
            ValueError,
            "unknown generator 'rotation' of maps of size",
        ),
        (lambda: LConv().build(geometry()).generator("L9"), KeyError, "there are"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()

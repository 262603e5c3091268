"""Reading learned generators: as vector fields, and by their likeness to known ones.

**Likeness.** A learned set spans a space; how near a known generator K comes to it, after the best
change of basis, is the cosine of its angle to that space, ``||P K|| / ||K||``. Two smooth random
generators are alike by chance, so the cosine is compared with that of surrogates: generators with
the same power at every pair of wave vectors (out, in), hence as smooth and as local, but with
random phases (Theiler et al. 1992). The p-value is the share of surrogate sets that come as near,
and over several known generators it is corrected by Holm's method.

With a second moment H of the data, all angles are those of ``L H^1/2``: what a generator does to
images that never occur does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symlearn.generators.affine import affine_generators, derivative
from symlearn.generators.algebra import check_generators

LEVEL = 0.05
"""Corrected p-value up to which a known generator may count as found."""
HALF = 0.5
"""Share of a known generator's square, ``cosine^2``, that must lie in the learned space for that:
generators overlap, so that a rotation alone is like a hyperbolic rotation to some extent."""


@dataclass(frozen=True)
class VectorField:
    """The vector field that a generator is nearest to, ``L ~ a - Y . grad``.

    Attributes:
        field: Y at the sites, (x, y) [H, W, 2] or [length, 1], in pixels.
        scale: a at the sites, [*size]: what is multiplied there.
        share: ``1 - ||rest||^2 / ||L||^2``, in [0, 1].
    """

    field: Tensor
    scale: Tensor
    share: float


def vector_field(
    matrix: Tensor, size: Sequence[int], second_moment: Tensor | None = None
) -> VectorField:
    """The nearest vector field of a generator over the sites of a map, by least squares.

    Row s of L is projected on the unit at s and on the rows of the Shannon-Whittaker derivatives
    there, all of them times the root of the second moment.

    Args:
        matrix: Generator [S, S].
        size: Spatial size of the map, one or two axes, with S sites.
        second_moment: ``E x x^T`` over the sites [S, S], where only what the generator does to data
            is to count.

    Raises:
        ValueError: If a matrix is not square over these sites.
    """
    (given,) = check_generators(matrix, square=True)
    sites = math.prod(size)
    if sites != len(given) or len(size) not in (1, 2):
        raise ValueError(
            f"a generator over {len(given)} sites is not one of maps of size {tuple(size)}"
        )
    root = _root(second_moment, sites)
    moves = [-_along(axis, size) for axis in reversed(range(len(size)))]  # x is the last axis
    parts = torch.stack([*moves, torch.eye(sites, dtype=given.dtype)], 1) @ root  # [S, axes + 1, S]
    wanted = (given @ root).unsqueeze(1)
    found = (wanted @ torch.linalg.pinv(parts)).squeeze(1)
    total = float(wanted.square().sum())
    rest = float((wanted - found.unsqueeze(1) @ parts).square().sum())
    return VectorField(
        found[:, :-1].reshape(*size, len(size)),
        found[:, -1].reshape(*size),
        1 - rest / total if total > 0 else 0.0,
    )


def _along(axis: int, size: Sequence[int]) -> Tensor:
    """The derivative along one axis as a matrix over sites [S, S]."""
    out = torch.ones(1, 1, dtype=torch.float64)
    for i, n in enumerate(size):
        out = torch.kron(out, derivative(n) if i == axis else torch.eye(n, dtype=torch.float64))
    return out


@dataclass(frozen=True)
class Likeness:
    """How near a set of learned generators comes to a known one.

    Attributes:
        name: Name of the known generator.
        cosine: Of its angle to the space that the learned ones span, in [0, 1].
        chance: Mean cosine of surrogate sets.
        p_value: Share of surrogate sets that come as near, corrected over all known generators.
        coefficients: The best combination of the learned generators, as given.
    """

    name: str
    cosine: float
    chance: float
    p_value: float
    coefficients: tuple[float, ...]

    @property
    def found(self) -> bool:
        """Whether most of the known generator lies in the space, and by more than chance."""
        return self.p_value <= LEVEL + 1e-9 and self.cosine**2 >= HALF


def likeness(
    matrices: Tensor,
    size: Sequence[int],
    known: Sequence[str] | Mapping[str, Tensor] | None = None,
    *,
    second_moment: Tensor | None = None,
    draws: int = 199,
    seed: int = 0,
) -> tuple[Likeness, ...]:
    """Compare the space of learned generators with known ones; see the module for the method.

    The identity, a generator of every layer, belongs to the space.

    Args:
        matrices: Learned generators [n, S, S].
        size: Spatial size of the maps they act on.
        known: Names of affine generators, or matrices [S, S] by name; by default translations,
            rotation, scaling, hyperbolic and diagonal.
        second_moment: ``E x x^T`` over the sites [S, S], where angles are to be those on data.
        draws: Number of surrogate sets; the smallest p-value is ``1 / (draws + 1)``.
        seed: Of the surrogates.

    Raises:
        ValueError: If shapes do not fit, or there are so few draws that no p-value could be small
            enough.
    """
    given = check_generators(matrices, square=True)
    targets = _targets(known, size)
    sites = math.prod(size)
    shapes = {tuple(m.shape[-2:]) for m in (given, *targets.values())}
    if shapes != {(sites, sites)}:
        raise ValueError(f"maps of size {tuple(size)} have {sites} sites; got matrices {shapes}")
    least = math.ceil(len(targets) / LEVEL) - 1
    if draws < least:
        raise ValueError(
            f"{draws} draws cannot tell {len(targets)} generators from chance at {LEVEL:.0%}; give "
            f"{least} at least"
        )
    root = _root(second_moment, sites)
    goal = torch.stack([m @ root for m in targets.values()]).flatten(1)
    cosines, coefficients = _nearness(given, goal, root)
    generator = torch.Generator().manual_seed(seed)
    chance = torch.stack(
        [_nearness(_surrogate(given, size, generator), goal, root)[0] for _ in range(draws)]
    )
    p_values = _holm((1 + (chance >= cosines).sum(0)).double() / (draws + 1))
    return tuple(
        Likeness(name, float(c), float(mean), float(p), tuple(row[: len(given)].tolist()))
        for name, c, mean, p, row in zip(
            targets, cosines, chance.mean(0), p_values, coefficients, strict=True
        )
    )


def _targets(
    known: Sequence[str] | Mapping[str, Tensor] | None, size: Sequence[int]
) -> dict[str, Tensor]:
    if isinstance(known, Mapping):
        return {name: check_generators(matrix, square=True)[0] for name, matrix in known.items()}
    chosen = affine_generators(size, known)
    return {g.name: g.matrix() for g in chosen}


def _root(second_moment: Tensor | None, sites: int) -> Tensor:
    """Symmetric root of the second moment, [S, S]; the identity without one."""
    if second_moment is None:
        return torch.eye(sites, dtype=torch.float64)
    (moment,) = check_generators(second_moment, square=True)
    if len(moment) != sites:
        raise ValueError(f"second_moment is {list(moment.shape)}, the maps have {sites} sites")
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _nearness(given: Tensor, goal: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines [K] of the goals' angles to the space, and the coefficients of the nearest [K, n+1].

    Args:
        given: Generators [n, S, S].
        goal: Known generators times the root, [K, S S].
        root: [S, S].
    """
    rows = torch.cat([(given @ root).flatten(1), root.reshape(1, -1)])
    size = rows.norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    unit = rows / size.unsqueeze(1)
    along = unit @ goal.T
    solution: Tensor = torch.linalg.pinv(unit @ unit.T, hermitian=True) @ along
    total = goal.square().sum(1).clamp(min=torch.finfo(goal.dtype).tiny)
    cosines: Tensor = ((solution * along).sum(0) / total).clamp(0.0, 1.0).sqrt()
    return cosines, (solution / size.unsqueeze(1)).T


def _surrogate(given: Tensor, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Generators with the same power at every pair of wave vectors and random phases."""
    shape = (len(given), *size, *size)
    axes = tuple(range(1, len(shape)))
    noise = torch.randn(shape, generator=generator, dtype=given.dtype)
    phases = torch.fft.fftn(noise, dim=axes).angle()
    waves = torch.fft.fftn(given.reshape(shape), dim=axes)
    moved: Tensor = torch.fft.ifftn(torch.polar(waves.abs(), phases), dim=axes).real
    return moved.reshape(given.shape)


def _holm(p_values: Tensor) -> Tensor:
    """Holm's correction: the chance of one wrong finding among all is at most the level."""
    order = p_values.argsort()
    factors = torch.arange(len(p_values), 0, -1, dtype=p_values.dtype)
    corrected = (p_values[order] * factors).cummax(0).values.clamp(max=1.0)
    out: Tensor = torch.empty_like(corrected).index_copy_(0, order, corrected)
    return out

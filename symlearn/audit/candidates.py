"""Which infinitesimal transformations of images leave a network's outputs most unchanged.

Over the generators a, b of a space of transformations, with the Jacobian J(x) of the outputs,

    own_ab   = E <J(x) A_a x, J(x) A_b x> / dim      an image moves along its own orbit
    other_ab = E <J(x) A_a x', J(x) A_b x'> / dim    it moves as another image x' does

A direction c with a small ratio ``c^T own c / c^T other c`` is a candidate for an invariance: moves
of the same size and kind change the outputs, those along the image's orbit do not. Whether a ratio
is small is asked of two null distributions; docs/theory/equivariance.md has the reasons.

Index letters: N images, m rows of the Jacobian, g generators, d pixels and channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.audit import images, resample
from symlearn.audit.sensitivity import MOST_ROWS, check_draws, p_value, rows
from symlearn.audit.transforms import Affine, as_transformations
from symlearn.progress import Progress
from symlearn.report.text import draw_lines

NEGLIGIBLE = 0.01
"""Change of the outputs, relative to moving as far towards other images, that counts as none."""

_ROUNDING = 1e-9
_PAIRINGS = 8  # other images x' per image
_WAVES = 4  # half-waves per axis of random fields, from none

Tangents = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] to their moves along g generators, [N, g, d] in float64."""


@dataclass(frozen=True)
class Candidate:
    """A one-parameter group, and how much a network's outputs change along it.

    Attributes:
        coefficients: Its generator as a sum of the given ones, by name. The image changes by one
            per unit of its parameter (root mean square over pixels).
        cosines: Of the moves along it with the moves along each given generator, by name.
        change: Mean square change of the outputs per unit.
        ratio: The same, relative to moving each image as other images move.
        p_value: The larger of two shares of null draws with a ratio as small: generators on
            scrambled pixels, and random smooth vector fields.
    """

    coefficients: dict[str, float]
    cosines: dict[str, float]
    change: float
    ratio: float
    p_value: float


@dataclass(frozen=True)
class Invariances:
    """Directions in a space of generators, smallest ratio first.

    Attributes:
        directions: As many as there are generators.
        level: Largest p-value of those that are found.
        n_images: Number of images.
        draws: Draws of each null distribution.
    """

    directions: tuple[Candidate, ...]
    level: float
    n_images: int
    draws: int

    @property
    def found(self) -> tuple[Candidate, ...]:
        """The directions that neither null distribution explains."""
        return tuple(c for c in self.directions if c.p_value <= self.level)

    def __str__(self) -> str:
        names = list(self.directions[0].cosines)
        body = [
            [
                *(f"{c.cosines[name]:.2f}" for name in names),
                *(f"{v:.3g}" for v in (c.change, c.ratio, c.p_value)),
                "yes" if c in self.found else "no",
            ]
            for c in self.directions
        ]
        titles = [*names, "change", "ratio", "p", "found"]
        return "\n".join(draw_lines(titles, body, [True] * len(titles)))


def affine_basis(resampling: str = "bilinear", padding: str = "reflection") -> tuple[Affine, ...]:
    """The six generators of the affine group of the plane.

    Translations, rotation, scaling, hyperbolic rotation along the axes and along the diagonals.
    """
    names = ("translation_x", "translation_y", "rotation", "scaling", "hyperbolic")
    ready = as_transformations(names, resampling, padding)
    diagonal = Affine("diagonal", ((0.0, 1.0), (1.0, 0.0)), resampling=resampling, padding=padding)
    return (*(t for t in ready if isinstance(t, Affine)), diagonal)


def invariances(
    model: nn.Module,
    x: Tensor,
    generators: Sequence[Affine] | None = None,
    *,
    link: str = "identity",
    draws: int = 99,
    level: float = 0.05,
    memory_gb: float = 1.0,
    seed: int = 0,
    progress: bool | None = False,
) -> Invariances:
    """Find directions in a space of generators along which a network's outputs stay the same.

    Args:
        model: The network, with outputs [N, K]; it is run in eval mode.
        x: Images [N, C, H, W], at least three; a few hundred make small effects visible.
        generators: A basis of the space; by default `affine_basis`.
        link: "identity" or "softmax".
        draws: Draws of each null distribution.
        level: Largest p-value of those that are found; at least ``1 / (1 + draws)``.
        memory_gb: Memory for Jacobians and moved images, in units of 10^9 bytes.
        seed: Of pairings and null distributions.
        progress: Whether to show a progress bar; None on terminals only.

    Raises:
        ValueError: If the generators do not change the images, or not independently; for fewer
            than three images, outputs that are not [N, K], or a level no draw can reach.
        TypeError: If a generator is not an `Affine`.
        NoDerivativeError: If the network cannot be differentiated.

    Example:
        >>> import torch
        >>> from symlearn.audit import invariances
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
        >>> len(invariances(net, torch.rand(20, 1, 6, 6), draws=19).directions)
        6
    """
    basis = tuple(generators or affine_basis())
    _check(basis, x, draws, level)
    makers = [_along(basis), *_null(basis, x, draws, seed)]
    totals = [_Totals(len(basis), x.device) for _ in makers]
    n_rows = MOST_ROWS + 4 * len(basis)
    size = max(3, int(memory_gb * 1e9 / (8 * n_rows * x[0].numel())))
    parts = x.tensor_split(max(1, math.ceil(len(x) / size)))
    order = torch.Generator().manual_seed(seed)
    towards = 0.0  # mean square change of the outputs per unit, towards other images
    with images.frozen(model), Progress(progress, "candidates", len(parts) * len(makers)) as bar:
        for part in parts:
            jacobian = rows(model, part, link, seed)
            pairings = _pairings(len(part), order)
            towards += _towards_others(jacobian, part, pairings) * len(part) / len(x)
            for maker, total in zip(makers, totals, strict=True):
                total.add(jacobian, maker(part), pairings, len(part) / len(x))
                bar.advance()
    return _ranked(basis, totals, towards, draws, level, len(x))


def _check(basis: Sequence[Affine], x: Tensor, draws: int, level: float) -> None:
    wrong = [type(g).__name__ for g in basis if not isinstance(g, Affine)]
    if wrong:
        raise TypeError(f"generators must be Affine, which move pixels; got {wrong}")
    if x.ndim != 4 or len(x) < 3:
        raise ValueError(f"got images {list(x.shape)}; give at least three, [N, C, H, W]")
    images.check_finite(x, "the data")
    check_draws(draws, level)


class _Totals:
    """Gram matrices over generators, summed over batches of images."""

    def __init__(self, n_generators: int, device: torch.device) -> None:
        size = (n_generators, n_generators)
        self.own, self.other, self.moved = (
            torch.zeros(size, dtype=torch.float64, device=device) for _ in range(3)
        )

    def add(
        self, jacobian: Tensor, moves: Tensor, pairings: Sequence[Tensor], share: float
    ) -> None:
        """Add a batch: Jacobian [N, m, d], moves [N, g, d], the other image of each, [N] each."""
        self.own += share * _gram(torch.einsum("nmd,ngd->nmg", jacobian, moves))
        for others in pairings:
            changed = torch.einsum("nmd,ngd->nmg", jacobian, moves[others])
            self.other += share / len(pairings) * _gram(changed)
        self.moved += share * _gram(moves.transpose(1, 2))

    def ratios(self, towards: float) -> tuple[Tensor, Tensor]:
        """Ratios [g], smallest first, and their directions in the columns of [g, g]."""
        reference = self.other + NEGLIGIBLE * towards * self.moved
        values, vectors = torch.linalg.eigh(reference)
        if not float(values[0]) > 0:  # a network that nothing changes
            return torch.ones_like(values), torch.eye(len(values)).to(values)
        whiten = vectors * values.rsqrt()
        found, directions = torch.linalg.eigh(whiten.T @ self.own @ whiten)
        # rounding does not rank what does not change at all
        return torch.where(found > _ROUNDING, found, 0.0), whiten @ directions


def _gram(v: Tensor) -> Tensor:
    """Mean over the first two axes of products over the last one, [g, g]."""
    flat = v.flatten(0, 1)
    gram: Tensor = flat.T @ flat / len(flat)
    return gram


def _pairings(n: int, generator: torch.Generator) -> list[Tensor]:
    """Other images for each of n, none with itself, [n] each."""
    found = []
    for _ in range(_PAIRINGS):
        order = torch.randperm(n, generator=generator)
        others = torch.empty_like(order)
        others[order] = order.roll(1)
        found.append(others)
    return found


def _towards_others(jacobian: Tensor, x: Tensor, pairings: Sequence[Tensor]) -> float:
    """Mean square change of the outputs per unit along differences of images."""
    flat = x.flatten(1).double()
    changed = moved = 0.0
    for others in pairings:
        difference = flat[others] - flat
        changed += float(torch.einsum("nmd,nd->nm", jacobian, difference).square().mean())
        moved += float(difference.square().mean())
    return changed / moved if moved else 0.0


def _along(basis: Sequence[Affine]) -> Tangents:
    return lambda x: torch.stack([g.generator(x).flatten(1) for g in basis], 1).double()


def _null(basis: Sequence[Affine], x: Tensor, draws: int, seed: int) -> Iterator[Tangents]:
    """First the generators on scrambled pixels, then spaces of random smooth fields."""
    generator = torch.Generator().manual_seed(seed + 1)
    size = (x.shape[2], x.shape[3])
    for _ in range(draws):
        yield _scrambled(basis, torch.randperm(size[0] * size[1], generator=generator))
    for _ in range(draws):
        yield _along_fields(_random_fields(len(basis), size, generator), basis[0])


def _scrambled(basis: Sequence[Affine], order: Tensor) -> Tangents:
    """Generators conjugated by a permutation of pixels [H W]."""
    back = order.argsort()

    def moves(x: Tensor) -> Tensor:
        scrambled = x.flatten(2)[..., order.to(x.device)].reshape(x.shape)
        found = _along(basis)(scrambled).unflatten(-1, (x.shape[1], -1))
        moved: Tensor = found[..., back.to(x.device)].flatten(2)
        return moved

    return moves


def _random_fields(n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Smooth vector fields without an affine part, [n, 2, H W]."""
    centres = [(torch.arange(k, dtype=torch.float64) + 0.5) / k for k in size]
    waves = [torch.stack([torch.cos(math.pi * k * c) for k in range(_WAVES)]) for c in centres]
    drawn = torch.randn(n, 2, _WAVES, _WAVES, generator=generator, dtype=torch.float64)
    fields = torch.einsum("nckl,kh,lw->nchw", drawn, *waves).flatten(2)
    down, right = torch.meshgrid(*centres, indexing="ij")
    affine, _ = torch.linalg.qr(torch.stack([v.flatten() for v in (down * 0 + 1, down, right)], 1))
    smooth: Tensor = fields - fields @ affine @ affine.T
    return smooth


def _along_fields(fields: Tensor, like: Affine) -> Tangents:
    def moves(x: Tensor) -> Tensor:
        down, right = resample.slopes(x.double(), like.resampling, like.padding)
        speed = fields.to(x.device).unflatten(-1, x.shape[-2:])[:, :, None]  # [g, 2, 1, H, W]
        moved = speed[:, 0] * down.unsqueeze(1) + speed[:, 1] * right.unsqueeze(1)
        flat: Tensor = moved.flatten(2)
        return flat

    return moves


def _ranked(
    basis: Sequence[Affine],
    totals: Sequence[_Totals],
    towards: float,
    draws: int,
    level: float,
    n_images: int,
) -> Invariances:
    first, names = totals[0], [g.name for g in basis]
    spread = torch.linalg.eigvalsh(first.moved)
    if not float(spread[0]) > 1e-10 * float(spread[-1]):
        raise ValueError(
            f"the generators {names} do not change the images independently "
            f"(eigenvalues {spread.tolist()}); leave some out, or give images with more content"
        )
    ratios, directions = first.ratios(towards)
    directions = directions / (directions * (first.moved @ directions)).sum(0).sqrt()
    changes = (directions * (first.own @ directions)).sum(0)
    cosines = first.moved @ directions / first.moved.diagonal().sqrt().unsqueeze(1)
    smallest = [float(total.ratios(towards)[0][0]) for total in totals[1:]]
    candidates = [
        Candidate(
            coefficients=dict(zip(names, directions[:, k].tolist(), strict=True)),
            cosines=dict(zip(names, cosines[:, k].tolist(), strict=True)),
            change=float(changes[k]),
            ratio=ratio,
            p_value=max(p_value(ratio, null) for null in (smallest[:draws], smallest[draws:])),
        )
        for k, ratio in enumerate(ratios.tolist())
    ]
    return Invariances(tuple(candidates), level, n_images, draws)

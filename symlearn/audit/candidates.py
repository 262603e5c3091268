"""Which infinitesimal affine transformations leave a network's outputs most unchanged.

    G_ab = E <L_a f, L_b f> / dim(V_2)        R_ab = E <A_a x, A_b x> / dim(V_1)

over the generators a, b. Directions c with a small ratio ``c^T G c / c^T R c`` change the image but
not the outputs: candidates for a symmetry to build in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.audit import images
from symlearn.audit.lie import derivative
from symlearn.audit.transforms import Affine, Transformation, as_transformations


@dataclass(frozen=True)
class Candidate:
    """A one-parameter group, and how much a network's outputs change along it.

    Attributes:
        coefficients: Its generator as a sum of the given ones, by name. The image changes by one
            per unit of its parameter (root mean square over pixels).
        change: Mean square change of the outputs per unit, ``c^T G c``.
        relative: The same, as a share of the largest over all directions.
    """

    coefficients: dict[str, float]
    change: float
    relative: float


def affine_basis(
    resampling: str = "bilinear", padding: str = "reflection"
) -> tuple[Transformation, ...]:
    """The six generators of the affine group of the plane.

    Translations, rotation, scaling, hyperbolic rotation along the axes and along the diagonals.
    """
    names = ("translation_x", "translation_y", "rotation", "scaling", "hyperbolic")
    diagonal = Affine("diagonal", ((0.0, 1.0), (1.0, 0.0)), resampling=resampling, padding=padding)
    return (*as_transformations(names, resampling, padding), diagonal)


def invariances(
    model: nn.Module,
    x: Tensor,
    generators: Sequence[Transformation] | None = None,
    *,
    link: str = "identity",
    output: str = "auto",
    batch: int = 32,
) -> tuple[Candidate, ...]:
    """Directions in a space of generators, those that change the outputs least first.

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        generators: A basis of the space; by default `affine_basis`.
        link: "identity" or "softmax".
        output: How generators act on outputs: "auto", "image" or "vector".
        batch: Images per batch.

    Raises:
        ValueError: If the generators do not change the images, or not independently.
        NoDerivativeError: If the network cannot be differentiated.
    """
    basis = tuple(generators or affine_basis())
    size = (len(basis), len(basis))
    out, moved = (torch.zeros(size, dtype=torch.float64, device=x.device) for _ in range(2))
    with images.frozen(model):
        for part in x.split(batch):
            lies = [
                derivative(lambda v: images.outputs(model, v, link), part, g, output)[1]
                for g in basis
            ]
            out += _gram(lies) * len(part) / len(x)
            moved += _gram([g.generator(part) for g in basis]) * len(part) / len(x)
    values, whiten = torch.linalg.eigh(moved)
    if not float(values[0]) > 1e-10 * float(values[-1]):
        raise ValueError(
            f"the generators {[g.name for g in basis]} do not change the images independently "
            f"(eigenvalues {values.tolist()}); leave some out, or give images with more content"
        )
    whiten = whiten * values.rsqrt()
    change, directions = torch.linalg.eigh(whiten.T @ out @ whiten)
    change = change.clamp(min=0.0)
    return tuple(
        Candidate(
            dict(zip([g.name for g in basis], column.tolist(), strict=True)),
            float(c),
            float(c / change[-1]) if change[-1] > 0 else 0.0,
        )
        for c, column in zip(change, (whiten @ directions).T, strict=True)
    )


def _gram(rows: Sequence[Tensor]) -> Tensor:
    """Inner products per image and number, [n, n]."""
    flat = torch.stack([r.flatten() for r in rows]).double()
    return flat @ flat.T / flat.shape[1]

"""Curvatures as `priors` sees them: anything with eigenvalues and a rotation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """Curvature ``U diag(lambda) U^T`` of one parameter, held as U and lambda."""

    basis: Tensor
    eigenvalues: Tensor

    def rotate(self, w: Tensor) -> Tensor:
        return self.basis.T @ w.reshape(-1)

    def dense(self) -> Tensor:
        return (self.basis * self.eigenvalues) @ self.basis.T


def spectrum(*eigenvalues: float, seed: int = 0) -> Spectrum:
    """A curvature with these eigenvalues, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return Spectrum(torch.linalg.qr(square).Q, torch.tensor(eigenvalues, dtype=torch.float64))


def problem() -> tuple[dict[str, Spectrum], dict[str, Tensor], dict[str, list[str]]]:
    """Curvature, weights and groups of a made-up model; group "ab" has two parameters."""
    generator = torch.Generator().manual_seed(1)
    curvature = {
        "a": spectrum(4.0, 0.5, 0.0),
        "b": spectrum(30.0, 2.0, seed=1),
        "c": spectrum(1e4, 3.0, 1e-3, 0.2, seed=2),
    }
    params = {
        name: 0.5 * torch.randn(len(s.eigenvalues), generator=generator, dtype=torch.float64)
        for name, s in curvature.items()
    }
    params["c"] = params["c"].reshape(2, 2)
    return curvature, params, {"ab": ["a", "b"], "c": ["c"]}

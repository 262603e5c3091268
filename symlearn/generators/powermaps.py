"""Integer powers of one matrix over sites as maps, and the products of several of them.

Index letters: ``N`` samples, ``C`` channels, ``S`` sites, ``P`` powers, ``T`` products of powers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from symlearn.generators.affine import field_terms, move

TERMS = 22
"""Terms of the series of exp: 2^23 / 23! is below the rounding of float64."""
NORM = 2.0
"""Norm of a generator whose series is summed; a larger one would cancel digits in float32."""


class PickedPowers(nn.Module):
    """Powers of a permutation: ``y[n, c, p, s] = x[n, c, index[p, s]]``.

    Args:
        index: Site that each power reads at each site, [P, S].
        persistent: Whether it is part of the state.
    """

    index: Tensor

    def __init__(self, index: Tensor, persistent: bool = False) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, P, S]."""
        # not x[..., index]: its backward takes 20 times as long on a CPU
        picked = x.index_select(-1, self.index.flatten())
        return picked.reshape(*x.shape[:-1], *self.index.shape)


class DensePowers(nn.Module):
    """Powers that are held as matrices, all but the identity.

    Args:
        matrices: Powers without the identity, [P - 1, S, S].
        zero: Place of the identity among the powers.
        persistent: Whether they are part of the state.
    """

    matrices: Tensor

    def __init__(self, matrices: Tensor, zero: int, persistent: bool = False) -> None:
        super().__init__()
        self.zero = zero
        self.register_buffer("matrices", matrices, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, P, S]."""
        moved = x @ self.matrices.to(x).flatten(0, 1).T
        moved = moved.unflatten(2, self.matrices.shape[:2])
        before, after = moved[:, :, : self.zero], moved[:, :, self.zero :]
        return torch.cat([before, x.unsqueeze(2), after], 2)


class SteppedPowers(nn.Module):
    """Powers by repeated steps, without a dense matrix.

    Args:
        up: The step ``A^D``, [N, C, S] to [N, C, S].
        down: The step ``A^-D``, or None for no negative powers.
        powers: K.
    """

    def __init__(self, up: nn.Module, down: nn.Module | None, powers: int) -> None:
        super().__init__()
        self.up, self.down, self.powers = up, down, powers

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, P, S]."""
        below = [] if self.down is None else self._walk(self.down, x)
        return torch.stack([*below[::-1], x, *self._walk(self.up, x)], 2)

    def _walk(self, step: nn.Module, x: Tensor) -> list[Tensor]:
        found = []
        for _ in range(self.powers):
            x = step(x)
            found.append(x)
        return found


class FieldMap(nn.Module):
    """The generator ``-Y . grad`` of a vector field, by one small matrix product per axis.

    Args:
        field: Y at the sites, in pixels, [*size, axes], x first.
    """

    def __init__(self, field: Tensor) -> None:
        super().__init__()
        self.size = tuple(field.shape[:-1])
        self._axes: list[tuple[int, str, str]] = []
        for axis, speed, slope in field_terms(field):
            names = f"speed{-axis}", f"slope{-axis}"
            self.register_buffer(names[0], speed, persistent=False)
            self.register_buffer(names[1], slope, persistent=False)
            self._axes.append((axis, *names))

    def _terms(self) -> list[tuple[int, Tensor, Tensor]]:
        return [(axis, getattr(self, a), getattr(self, b)) for axis, a, b in self._axes]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, S]."""
        return move(x.unflatten(2, self.size), self._terms()).flatten(2)

    def bound(self) -> float:
        """At least the spectral norm: derivatives have norms of at most pi."""
        return math.pi * sum(float(speed.abs().max()) for _, speed, _ in self._terms())

    def products(self) -> int:
        """Multiply-adds per map."""
        return math.prod(self.size) * sum(len(slope) for _, _, slope in self._terms())


class Exponential(nn.Module):
    """``exp(t G) x`` by the series of ``exp(t G / n)``, n times.

    Args:
        generator: G, [N, C, S] to [N, C, S].
        time: t.
        steps: n.
    """

    def __init__(self, generator: nn.Module, time: int, steps: int) -> None:
        super().__init__()
        self.generator, self.time, self.steps = generator, time, steps

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, S]."""
        for _ in range(self.steps):
            term = x
            for k in range(1, TERMS + 1):
                term = self.generator(term) * (self.time / self.steps / k)
                x = x + term
        return x


class Repeated(nn.Module):
    """A map that is applied several times.

    Args:
        sites: The map.
        times: How often.
    """

    def __init__(self, sites: nn.Module, times: int) -> None:
        super().__init__()
        self.sites, self.times = sites, times

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, S] to [N, C, S]."""
        for _ in range(self.times):
            x = self.sites(x)
        return x


def stacked(x: Tensor, bases: Iterable[nn.Module]) -> Tensor:
    """All products ``A^i B^j ...`` of powers of one or more base matrices, applied to maps.

    Args:
        x: Maps [N, C, S].
        bases: Powers of A, B, ..., each [N, C, S] to [N, C, P, S].

    Returns:
        ``A^i B^j ... x``, [N, C, T, S]; the power of the last matrix runs fastest.
    """
    out = x.unsqueeze(2)
    for base in reversed(list(bases)):  # the last one acts first
        products = out.shape[2]
        out = base(out.flatten(1, 2))  # [N, C T, P, S]
        out = out.unflatten(1, (-1, products)).transpose(2, 3).flatten(2, 3)
    return out


def combinations(bases: Sequence[nn.Module], sites: int) -> Tensor | None:
    """Site that each product of powers reads at each site, [T, S]; None if one mixes sites.

    Args:
        bases: Powers of A, B, ..., as for `stacked`.
        sites: S.
    """
    if not all(isinstance(base, PickedPowers) for base in bases):
        return None
    return stacked(torch.arange(sites).reshape(1, 1, -1), bases)[0, 0]

"""Ready groups, in the base representation that their name stands for.

Permutation groups act on n points; the others on vectors. Complex groups (`U`, `SU`) have complex
bases. Naming follows Finzi et al. 2021 and their package where both agree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from symlearn.groups.matrix import DirectProduct, MatrixGroup

_Point = tuple[int, int, int]


def Trivial(n: int) -> MatrixGroup:  # noqa: N802
    """The group of the identity alone, on R^n."""
    return MatrixGroup(f"Trivial({_positive(n)})", dim=n)


def permutations(name: str, generators: Iterable[Sequence[int]], n: int) -> MatrixGroup:
    """The group that permutations of n points generate.

    Args:
        name: How it is printed.
        generators: Each lists where the points 0, ..., n - 1 go.
        n: Number of points.

    Raises:
        ValueError: If one of them is no permutation.
    """
    listed = [list(p) for p in generators]
    wrong = [p for p in listed if sorted(p) != list(range(n))]
    if wrong:
        raise ValueError(f"group {name!r}: no permutations of 0, ..., {n - 1}: {wrong}")
    eye = torch.eye(n, dtype=torch.float64)
    # column i of the matrix is the unit vector of the point that i goes to
    return MatrixGroup(name, discrete=[eye[:, p] for p in listed], dim=n)


def Z(n: int) -> MatrixGroup:  # noqa: N802
    """Cyclic shifts of n points."""
    return permutations(f"Z({_positive(n)})", [_shift(n)] if n > 1 else [], n)


def S(n: int) -> MatrixGroup:  # noqa: N802
    """All permutations of n points, from a swap and a shift."""
    swap = [1, 0, *range(2, _positive(n))]
    return permutations(f"S({n})", [swap, _shift(n)] if n > 2 else [swap][: n - 1], n)


def A(n: int) -> MatrixGroup:  # noqa: N802
    """Even permutations of n points, from the 3-cycles (0 1 k)."""
    cycles = []
    for k in range(2, _positive(n)):
        cycle = list(range(n))
        cycle[0], cycle[1], cycle[k] = 1, k, 0
        cycles.append(cycle)
    return permutations(f"A({n})", cycles, n)


def C(n: int) -> MatrixGroup:  # noqa: N802
    """Rotations of the plane by multiples of 360/n degrees."""
    return MatrixGroup(f"C({_positive(n)})", discrete=[_turn(n)])


def D(n: int) -> MatrixGroup:  # noqa: N802
    """Symmetries of the regular n-gon: rotations of the plane, and a reflection, as 2x2 matrices.

    Its action on the n corners is ``permutations("corners", [shift, flip], n)``.
    """
    return MatrixGroup(f"D({_positive(n)})", discrete=[_turn(n), _reflection(2, 0)])


def Translations(n: int, m: int | None = None) -> DirectProduct:  # noqa: N802
    """``Z(n) * Z(m)``, cyclic shifts of an image with n rows and m columns (n by default)."""
    return Z(n) * Z(n if m is None else m)


def SO(p: int, q: int = 0) -> MatrixGroup:  # noqa: N802
    """Matrices of determinant one that preserve ``x1^2 + ... + xp^2 - ... - x_{p+q}^2``.

    With p and q positive it has two components; `SO0` is the one of the identity.
    """
    name = _named("SO", p, q)
    flips = [_reflection(p + q, 0, p + q - 1)] if p and q else []
    return MatrixGroup(name, flips, _orthogonal(p, q), dim=p + q)


def SO0(p: int, q: int) -> MatrixGroup:  # noqa: N802
    """The component of the identity of ``SO(p, q)``."""
    return MatrixGroup(_named("SO0", p, q), lie=_orthogonal(p, q), dim=p + q)


def O(p: int, q: int = 0) -> MatrixGroup:  # noqa: N802, E743
    """Matrices that preserve ``x1^2 + ... + xp^2 - ... - x_{p+q}^2``."""
    name = _named("O", p, q)
    ends = ([0] if p else []) + ([p + q - 1] if q else [])
    flips = [_reflection(p + q, axis) for axis in ends]
    return MatrixGroup(name, flips, _orthogonal(p, q), dim=p + q)


def SO13p() -> MatrixGroup:  # noqa: N802
    """The proper orthochronous Lorentz group SO+(1, 3); the first coordinate is time."""
    return SO0(1, 3)


def SO13() -> MatrixGroup:  # noqa: N802
    """The proper Lorentz group SO(1, 3)."""
    return SO(1, 3)


def O13() -> MatrixGroup:  # noqa: N802
    """The full Lorentz group O(1, 3), with time reversal and parity."""
    return O(1, 3)


def Lorentz() -> MatrixGroup:  # noqa: N802
    """The Lorentz group O(1, 3), as `O13`."""
    return O13()


def Sp(n: int) -> MatrixGroup:  # noqa: N802
    """The symplectic group on R^2n, positions before momenta: ``M^T J M = J``."""
    basis = [_entries(2 * n, [(i, j, 1), (n + j, n + i, -1)]) for i, j in _pairs(_positive(n))]
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        basis.append(_entries(2 * n, [(n + i, j, 1), (n + j, i, 1)]))
        basis.append(_entries(2 * n, [(i, n + j, 1), (j, n + i, 1)]))
    return MatrixGroup(f"Sp({n})", lie=basis)


def SL(n: int) -> MatrixGroup:  # noqa: N802
    """Real matrices of determinant one."""
    basis = [_entries(n, [(i, j, 1)]) for i, j in _pairs(_positive(n)) if i != j]
    return MatrixGroup(f"SL({n})", lie=basis + [torch.diag(v) for v in _traceless(n)], dim=n)


def GL(n: int) -> MatrixGroup:  # noqa: N802
    """Invertible real matrices, of both signs of the determinant."""
    basis = [_entries(n, [(i, j, 1)]) for i, j in _pairs(_positive(n))]
    return MatrixGroup(f"GL({n})", discrete=[_reflection(n, 0)], lie=basis)


def U(n: int) -> MatrixGroup:  # noqa: N802
    """Complex unitary matrices."""
    diagonal = [_entries(n, [(i, i, 1)]) for i in range(_positive(n))]
    return MatrixGroup(f"U({n})", lie=[*_off_diagonal(n), *(1j * m for m in diagonal)])


def SU(n: int) -> MatrixGroup:  # noqa: N802
    """Complex unitary matrices of determinant one."""
    diagonal = [1j * torch.diag(v) for v in _traceless(_positive(n))]
    return MatrixGroup(f"SU({n})", lie=[*_off_diagonal(n), *diagonal], dim=n)


def SE(n: int) -> MatrixGroup:  # noqa: N802
    """Rotations and translations of R^n, as affine matrices on ``(x, 1)`` [n + 1]."""
    return _affine(f"SE({n})", SO(n))


def E(n: int) -> MatrixGroup:  # noqa: N802
    """Rotations, reflections and translations of R^n, as affine matrices on ``(x, 1)`` [n + 1]."""
    return _affine(f"E({n})", O(n))


def Scaling(n: int) -> MatrixGroup:  # noqa: N802
    """Multiples of the identity of R^n by positive numbers."""
    return MatrixGroup(f"Scaling({n})", lie=[torch.eye(_positive(n), dtype=torch.float64)])


def embedded(group: MatrixGroup, dim: int, at: int = 0) -> MatrixGroup:
    """A group that acts on some coordinates of a larger space and leaves the others alone.

    Args:
        group: The group, of size d.
        dim: Size of the larger space.
        at: First coordinate it acts on; the last is ``at + d - 1``.

    Raises:
        ValueError: If the coordinates do not exist.

    Example:
        >>> from symlearn.groups import SO, embedded
        >>> embedded(SO(2), 3)  # rotations about the last axis of space
        SO(2) on 0..1 of 3
    """
    stop = at + group.dim
    if at < 0 or stop > dim:
        raise ValueError(f"coordinates {at}..{stop - 1} do not exist in a space of size {dim}")

    def placed(m: Tensor, rest: float) -> Tensor:
        full = rest * torch.eye(dim, dtype=m.dtype)
        full[at:stop, at:stop] = m
        return full

    return MatrixGroup(
        f"{group!r} on {at}..{stop - 1} of {dim}",
        [placed(h, 1.0) for h in group.discrete],
        [placed(a, 0.0) for a in group.lie],
        dim=dim,
    )


def RubiksCube() -> MatrixGroup:  # noqa: N802
    """Turns of the six faces, as permutations of the 48 facets that are not face centres."""
    # a facet is its cubie's position and the direction it looks to
    facets = [
        (p, d)
        for p in itertools.product((-1, 0, 1), (-1, 0, 1), (-1, 0, 1))
        for d in _directions()
        if sum(a * b for a, b in zip(p, d, strict=True)) == 1 and sum(map(abs, p)) > 1
    ]
    index = {facet: i for i, facet in enumerate(facets)}
    turns = []
    for face in _directions():
        axis = next(i for i in range(3) if face[i])
        turned = [
            (_quarter(p, axis), _quarter(d, axis)) if p[axis] == face[axis] else (p, d)
            for p, d in facets
        ]
        turns.append([index[facet] for facet in turned])
    return permutations("RubiksCube()", turns, len(facets))


def _directions() -> list[_Point]:
    units = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    return [*units, *((-x, -y, -z) for x, y, z in units)]


def _quarter(p: _Point, axis: int) -> _Point:
    """A point turned by a quarter about an axis."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out = list(p)
    out[a], out[b] = -p[b], p[a]
    return (out[0], out[1], out[2])


def _positive(n: int) -> int:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the size of a group is an integer of one or more, got {n!r}")
    return n


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(n)]


def _vector(numbers: Iterable[float]) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.float64)


def _entries(n: int, entries: Iterable[tuple[int, int, float]]) -> Tensor:
    """A matrix [n, n] that is zero elsewhere."""
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for i, j, value in entries:
        matrix[i, j] = value
    return matrix


def _named(name: str, p: int, q: int) -> str:
    if not all(isinstance(v, int) and v >= 0 for v in (p, q)) or p + q < 1:
        raise ValueError(
            f"{name} needs sizes p, q of zero or more with a positive sum, got {p!r}, {q!r}"
        )
    return f"{name}({p}, {q})" if q else f"{name}({p})"


def _turn(n: int) -> Tensor:
    """The rotation of the plane by 360/n degrees, exact for quarter turns."""
    c, s = math.cos(2 * math.pi / n), math.sin(2 * math.pi / n)
    c, s = (float(round(v)) if abs(v - round(v)) < 1e-15 else v for v in (c, s))
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def _shift(n: int) -> list[int]:
    return [(i + 1) % n for i in range(n)]


def _reflection(n: int, *axes: int) -> Tensor:
    """The diagonal matrix with -1 on some axes."""
    return torch.diag(_vector(-1 if i in axes else 1 for i in range(n)))


def _orthogonal(p: int, q: int) -> list[Tensor]:
    """The algebra that preserves a quadratic form: rotations, and boosts between its two parts."""
    pairs = itertools.combinations(range(p + q), 2)
    return [_entries(p + q, [(i, j, -1 if (i < p) == (j < p) else 1), (j, i, 1)]) for i, j in pairs]


def _off_diagonal(n: int) -> list[Tensor]:
    """Anti-Hermitian matrices without a diagonal."""
    pairs = list(itertools.combinations(range(n), 2))
    real = [_entries(n, [(i, j, 1), (j, i, -1)]) for i, j in pairs]
    return real + [1j * _entries(n, [(i, j, 1), (j, i, 1)]) for i, j in pairs]


def _traceless(n: int) -> list[Tensor]:
    """Orthogonal diagonals of trace zero."""
    return [_vector([1] * k + [-k] + [0] * (n - k - 1)) for k in range(1, n)]


def _affine(name: str, group: MatrixGroup) -> MatrixGroup:
    n = group.dim
    larger = embedded(group, n + 1)
    shifts = [_entries(n + 1, [(i, n, 1)]) for i in range(n)]
    return MatrixGroup(name, larger.discrete, [*larger.lie, *shifts])

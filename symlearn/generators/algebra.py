"""Linear algebra of sets of generators: bases, brackets, structure constants, canonical form.

Index letters: ``n`` generators, ``S`` input sites, ``S'`` output sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e4  # machine epsilons, of products of norms, below which a bracket counts as zero


def check_generators(matrices: Tensor, square: bool = False) -> Tensor:
    """Generators [n, S', S] in float64, or one matrix as a set of one.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If they are no matrices, none, not square where they have to be, or not finite.
    """
    if not isinstance(matrices, Tensor):
        raise TypeError(f"generators must be a tensor [n, S', S], got {type(matrices).__name__}")
    found = matrices.detach().cpu().double()
    found = found.unsqueeze(0) if found.ndim == 2 else found
    if found.ndim != 3 or not found.numel() or (square and found.shape[1] != found.shape[2]):
        kind = "square matrices [n, S, S]" if square else "matrices [n, S', S]"
        raise ValueError(f"generators have shape {list(matrices.shape)}; give {kind}")
    if not bool(torch.isfinite(found).all()):
        raise ValueError("the generators contain NaN or infinite values")
    return found


@dataclass(frozen=True)
class Structure:
    """How a set of generators closes under brackets.

    Attributes:
        constants: ``f_ij^k`` of ``[L_i, L_j] = sum_k f_ij^k L_k + rest``, [n, n, n], by least
            squares.
        closure_error: Norm of the rest over that of the bracket, [n, n]; 0 for a bracket that is
            zero up to rounding.
    """

    constants: Tensor
    closure_error: Tensor


def structure(matrices: Tensor, identity: bool = False) -> Structure:
    """Structure constants of generators and the error of closing (L-conv, Eq. 2).

    Args:
        matrices: Generators [n, S, S].
        identity: Whether brackets may also contain the identity, which is a generator of every
            layer with ``L_0 = I``; its constant is not returned.

    Raises:
        ValueError: If the generators are not square matrices of one size, or linearly dependent.

    Example:
        >>> import torch
        >>> from symlearn.generators import structure
        >>> so3 = torch.zeros(3, 3, 3)
        >>> for i, (a, b) in enumerate([(1, 2), (2, 0), (0, 1)]):
        ...     so3[i, a, b], so3[i, b, a] = -1.0, 1.0
        >>> found = structure(so3)
        >>> found.constants[0, 1].tolist(), float(found.closure_error.max())
        ([0.0, 0.0, 1.0], 0.0)
    """
    given = check_generators(matrices, square=True)
    n, sites = given.shape[:2]
    rows = given.flatten(1)
    if identity:
        rows = torch.cat([rows, torch.eye(sites, dtype=rows.dtype).reshape(1, -1)])
    scale = rows.norm(dim=1, keepdim=True)
    values = torch.linalg.svdvals(rows / scale.clamp(min=torch.finfo(rows.dtype).tiny))
    if not float(values[-1]) > 1e-10:
        raise ValueError(
            f"the {len(rows)} generators are linearly dependent (smallest singular value "
            f"{float(values[-1]):.3g}); take their canonical form, or leave some out"
        )
    products = given.unsqueeze(1) @ given.unsqueeze(0)
    brackets = (products - products.transpose(0, 1)).reshape(n * n, -1)
    constants = torch.linalg.lstsq(rows.T, brackets.T).solution.T
    rest = (brackets - constants @ rows).norm(dim=1).reshape(n, n)
    norms = brackets.norm(dim=1).reshape(n, n)
    size = given.flatten(1).norm(dim=1)
    zero = norms <= _ROUNDING * torch.finfo(rows.dtype).eps * size[:, None] * size
    constants = constants.reshape(n, n, -1)[..., :n]
    return Structure(
        torch.where(zero.unsqueeze(2), 0.0, constants), torch.where(zero, 0.0, rest / norms)
    )


@dataclass(frozen=True)
class Canonical:
    """Generators in the basis in which they are orthonormal, and so are their weights.

    Attributes:
        matrices: Generators [k, S', S], orthonormal.
        weights: Weights [k, C', C], orthonormal.
        strengths: ``s_k``, falling, [k]: the layer's map is ``sum_k s_k L_k x W_k^T``.
    """

    matrices: Tensor
    weights: Tensor
    strengths: Tensor


def canonical(matrices: Tensor, weights: Tensor) -> Canonical:
    """The basis of generators that the function itself singles out.

    ``sum_i L_i x W_i`` stays the same under ``L -> A L, W -> A^-T W``, so the learned L_i are one
    basis of many: neither norms nor angles between them mean anything. Over pairs of sites times
    pairs of channels, ``M = sum_i vec(L_i) vec(W_i)^T`` does not change, and its singular vectors
    are generators and weights of norm one, orthogonal to each other; unique where the singular
    values differ. Terms of strength zero are left out.

    Args:
        matrices: Generators [n, S', S].
        weights: Their weights [n, C', C].

    Raises:
        ValueError: If the two differ in number, or are not finite.
    """
    given, w = check_generators(matrices), check_generators(weights)
    if len(given) != len(w):
        raise ValueError(f"{len(given)} generators have {len(w)} weights; give one for each")
    (q_l, r_l), (q_w, r_w) = (torch.linalg.qr(m.flatten(1).T) for m in (given, w))
    u, s, v = torch.linalg.svd(r_l @ r_w.T, full_matrices=False)
    kept = s > torch.finfo(s.dtype).eps * max(len(s), 1) * s.max()
    found_l, found_w = (q_l @ u).T[kept], (q_w @ v.T).T[kept]
    return Canonical(
        found_l.reshape(-1, *given.shape[1:]), found_w.reshape(-1, *w.shape[1:]), s[kept]
    )


def unscrambled(matrices: Tensor, order: Tensor) -> Tensor:
    """Generators of scrambled maps, ``x[..., order]``, as generators of the maps x.

    Args:
        matrices: Generators [n, S, S], or one.
        order: A permutation of the sites, [S].

    Raises:
        ValueError: If the generators are not square, or the order is no permutation of their sites.
    """
    given = check_generators(matrices, square=True)
    order = torch.as_tensor(order).cpu()
    if not torch.equal(order.sort().values, torch.arange(given.shape[1])):
        raise ValueError(f"order must be a permutation of the {given.shape[1]} sites")
    back = order.argsort()
    return given[:, back][..., back].reshape(matrices.shape)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and singular values of a generator, which no change of the pixels' order moves.

    Attributes:
        eigenvalues: [S], complex, by falling size; purely imaginary for generators of rotations.
        singular_values: [S], falling.
        rotation_share: ``||antisymmetric part||^2 / ||L||^2``, in [0, 1].
    """

    eigenvalues: Tensor
    singular_values: Tensor
    rotation_share: float


def spectrum(matrix: Tensor) -> Spectrum:
    """The spectrum of one square generator [S, S].

    Raises:
        ValueError: If it is not one square matrix of finite values.
    """
    (given,) = check_generators(matrix, square=True)
    values = torch.linalg.eigvals(given)
    turning = (given - given.T).square().sum() / 4
    total = given.square().sum()
    return Spectrum(
        values[values.abs().argsort(descending=True)],
        torch.linalg.svdvals(given),
        float(turning / total) if total > 0 else 0.0,
    )

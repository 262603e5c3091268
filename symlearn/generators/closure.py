"""How far generators of low rank are from a Lie algebra, without a matrix over pairs of sites.

For ``L_i = U_i V_i`` all inner products reduce to matrices of size d_h:

    <L_i, L_j> = sum (U_i^T U_j) * (V_i V_j^T)        [L_i, L_j] = U_i A_ij V_j - U_j A_ji V_i

with ``A_ij = V_i U_j``. The cost is ``n^2 d_h^2 S`` (L-conv, Sec. 3, "Learning the L_i").
Index letters: ``n`` generators, ``S`` sites, ``d_h`` rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-7  # of the Gram matrix of unit generators: two may be parallel
_TINY = 1e-30


def _gram(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``U_i^T U_j`` and ``V_i V_j^T`` [n, n, d_h, d_h], and ``<L_i, L_j>`` [n, n]."""
    left = torch.einsum("ish,jsk->ijhk", u, u)
    right = torch.einsum("ihs,jks->ijhk", v, v)
    return left, right, (left * right).sum((2, 3))


def overlap(u: Tensor, v: Tensor) -> Tensor:
    """``sum_{i<j} cos^2`` of the angles between generators, [] (differentiable).

    Args:
        u: Factors U [n, S', d_h].
        v: Factors V [n, d_h, S].
    """
    gram = _gram(u, v)[2]
    square = gram.diagonal()
    cosines = gram.square() / (square[:, None] * square).clamp(min=_TINY)
    return cosines.triu(1).sum()


def closure(u: Tensor, v: Tensor) -> Tensor:
    """``sum_{i<j} ||rest_ij||^2 / ||L_i||^2 ||L_j||^2``, [] (differentiable).

    The rest is what no combination of the generators and the identity gives of ``[L_i, L_j]``.

    Args:
        u: Factors U [n, S, d_h].
        v: Factors V [n, d_h, S].
    """
    left, right, gram = _gram(u, v)
    inner = torch.einsum("ihs,jsk->ijhk", v, u)
    square = gram.diagonal()
    size = square.clamp(min=_TINY).sqrt()
    # <[L_i, L_j], L_k>; a bracket has no trace, so that none with the identity
    products = torch.einsum("ikac,ijab,jkbc->ijk", left, inner, right)
    along = (products - products.transpose(0, 1)) / size
    own = torch.einsum("ijab,iac,ijcd,jbd->ij", inner, _own(left), inner, _own(right))
    cross = torch.einsum("ijac,ijab,jibd,jicd->ij", left, inner, right, inner)
    norm = own + own.T - 2 * cross
    basis = gram / (size[:, None] * size)
    trace = torch.einsum("iihh->i", inner) / (size * u.shape[1] ** 0.5)
    basis = basis - trace[:, None] * trace  # what is left of the generators without the identity
    ridge = _RIDGE * torch.eye(len(u), dtype=u.dtype, device=u.device)
    solved = torch.linalg.solve(basis + ridge, along.flatten(0, 1).T).T.reshape(along.shape)
    rest = (norm - (along * solved).sum(2)) / (square[:, None] * square).clamp(min=_TINY)
    total: Tensor = rest.triu(1).sum()
    return total


def _own(gram: Tensor) -> Tensor:
    """The blocks i = j, [n, d_h, d_h]."""
    own: Tensor = gram.diagonal(dim1=0, dim2=1)
    return own.movedim(2, 0)

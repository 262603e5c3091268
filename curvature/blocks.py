"""Value objects: the curvature of one parameter, in a form that is cheap to work with.

All act on the row-major flattening of the parameter as it is stored. Index letters: ``P``
parameters, ``B`` blocks, ``I`` inputs of a block, ``O`` outputs of a block. ``delta`` is a prior
precision: a positive number or a 0-dim tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Precision = float | Tensor
Reshape = Callable[[Tensor], Tensor]


def _positive(delta: Precision) -> Precision:
    if not bool(torch.as_tensor(delta > 0).all()):
        raise ValueError(f"delta is {delta}; a prior precision must be positive")
    return delta


class Block(ABC):
    """Symmetric positive semi-definite curvature ``H [P, P]`` of one parameter."""

    shape: torch.Size

    @property
    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of H, [P], in the order of `rotate`'s coefficients; never negative."""

    @abstractmethod
    def rotate(self, w: Tensor) -> Tensor:
        """Coefficients [P] of a parameter-shaped tensor in the eigenbasis (``U^T w``)."""

    @abstractmethod
    def unrotate(self, coefficients: Tensor) -> Tensor:
        """Inverse of `rotate`: parameter-shaped tensor from coefficients [P] (``U c``)."""

    @abstractmethod
    def scaled(self, factor: float) -> Block:
        """Return ``factor * H``."""

    @abstractmethod
    def __add__(self, other: Block) -> Block:
        """Curvature of the union of two data sets."""

    def logdet(self, delta: Precision) -> Tensor:
        """``log det(H + delta I)``, []."""
        return torch.log(self.eigenvalues + _positive(delta)).sum()

    def effective_dim(self, delta: Precision) -> Tensor:
        """Effective parameters ``sum lambda / (lambda + delta)``, [] (MacKay 1992)."""
        lam = self.eigenvalues
        return (lam / (lam + _positive(delta))).sum()

    def solve(self, w: Tensor, delta: Precision) -> Tensor:
        """``(H + delta I)^-1 w``, in the parameter's shape."""
        return self.unrotate(self.rotate(w) / (self.eigenvalues + _positive(delta)))

    def sample(self, delta: Precision, generator: torch.Generator | None = None) -> Tensor:
        """One draw from ``N(0, (H + delta I)^-1)``, in the parameter's shape."""
        lam = self.eigenvalues
        eps = torch.randn(lam.shape, generator=generator, dtype=torch.float64).to(lam)
        return self.unrotate(eps / (lam + _positive(delta)).sqrt())

    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]."""
        lam = self.eigenvalues
        eye = torch.eye(len(lam), dtype=lam.dtype, device=lam.device)
        basis = torch.stack([self.unrotate(column).reshape(-1) for column in eye], dim=1)
        return (basis * lam) @ basis.T


class Factor:
    """A stack of symmetric PSD matrices [B, D, D] with a cached eigendecomposition.

    One object may serve two blocks (a weight and its bias share the output factor), so that it is
    decomposed once.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self._decomposed: tuple[Tensor, Tensor] | None = None

    def _eigh(self) -> tuple[Tensor, Tensor]:
        if self._decomposed is None:
            values, vectors = torch.linalg.eigh(self.matrix)
            # below this, eigenvalues of a PSD matrix are rounding: a rank-deficient factor would
            # otherwise contribute noise that small precisions turn into evidence
            noise = values.shape[-1] * torch.finfo(values.dtype).eps * values[..., -1:].clamp(min=0)
            self._decomposed = torch.where(values > noise, values, 0.0), vectors
        return self._decomposed

    @property
    def values(self) -> Tensor:
        """Eigenvalues [B, D], ascending, rounding noise set to zero."""
        return self._eigh()[0]

    @property
    def vectors(self) -> Tensor:
        """Eigenvectors [B, D, D] as columns."""
        return self._eigh()[1]

    def __add__(self, other: Factor) -> Factor:
        return Factor(self.matrix + other.matrix)


@dataclass(frozen=True)
class Layout:
    """How a parameter's elements are arranged as ``[B, O, I]``.

    Attributes:
        shape: Shape of the parameter as stored.
        to_blocks: Parameter-shaped tensor to [B, O, I]; a rearrangement of the elements.
        from_blocks: Its inverse.
    """

    shape: torch.Size
    to_blocks: Reshape
    from_blocks: Reshape


class KroneckerBlocks(Block):
    """Block-diagonal curvature with blocks ``H_b = G_b (x) A_b / count``.

    Args:
        inputs: Input factor ``A_b = sum a a^T``, [B, I, I].
        outputs: Output factor ``G_b = sum g g^T``, [B, O, O].
        count: Number of terms in A; dividing by it makes the product of the two sums an
            approximation of the sum of products (paper, App. C).
        layout: The parameter's arrangement as [B, O, I].
        corrected: Eigenvalues [B, O, I] that replace the products of the factors' eigenvalues
            (EKFAC, George et al. 2018), or None.
    """

    def __init__(
        self,
        inputs: Factor,
        outputs: Factor,
        count: float,
        layout: Layout,
        corrected: Tensor | None = None,
    ) -> None:
        self.inputs, self.outputs, self.count = inputs, outputs, count
        self.layout, self.corrected = layout, corrected
        self.shape = layout.shape

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P]: products of the factors', or the corrected ones."""
        if self.corrected is not None:
            return self.corrected.reshape(-1)
        product = self.outputs.values.unsqueeze(-1) * self.inputs.values.unsqueeze(-2)
        return (product / self.count).reshape(-1)

    def rotate(self, w: Tensor) -> Tensor:
        """``U_G^T W U_A`` for each block, [P]."""
        blocks = self.layout.to_blocks(w.reshape(self.shape).to(self.inputs.matrix))
        return (self.outputs.vectors.mT @ blocks @ self.inputs.vectors).reshape(-1)

    def unrotate(self, coefficients: Tensor) -> Tensor:
        """``U_G C U_A^T`` for each block, in the parameter's shape."""
        o, i = self.outputs.matrix.shape[-1], self.inputs.matrix.shape[-1]
        blocks = self.outputs.vectors @ coefficients.reshape(-1, o, i) @ self.inputs.vectors.mT
        return self.layout.from_blocks(blocks).reshape(self.shape)

    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]; for a Linear weight this is ``kron(G, A) / count``."""
        if self.corrected is not None:
            return super().to_dense()
        a, g = self.inputs.matrix, self.outputs.matrix
        blocks = [torch.kron(g_b, a_b) / self.count for g_b, a_b in zip(g, a, strict=True)]
        size = self.shape.numel()
        index = self.layout.to_blocks(torch.arange(size, device=a.device).reshape(self.shape))
        dense = a.new_zeros(size, size)
        dense[index.reshape(-1, 1), index.reshape(1, -1)] = torch.block_diag(*blocks)
        return dense

    def scaled(self, factor: float) -> KroneckerBlocks:
        """Return ``factor * H``; the eigendecompositions are kept."""
        corrected = None if self.corrected is None else self.corrected * factor
        return KroneckerBlocks(
            self.inputs, self.outputs, self.count / factor, self.layout, corrected
        )

    def __add__(self, other: Block) -> KroneckerBlocks:
        if not isinstance(other, KroneckerBlocks) or other.shape != self.shape:
            raise TypeError("only the curvatures of the same parameter can be added")
        if self.corrected is not None or other.corrected is not None:
            # corrected eigenvalues belong to one eigenbasis; the sum has another
            raise TypeError("eigenvalue-corrected curvatures cannot be added; add plain ones")
        return KroneckerBlocks(
            self.inputs + other.inputs,
            self.outputs + other.outputs,
            self.count + other.count,
            self.layout,
        )


class DenseBlock(Block):
    """Curvature held as a full matrix.

    Args:
        matrix: H, symmetric PSD, [P, P].
        shape: Shape of the parameter.
    """

    def __init__(self, matrix: Tensor, shape: torch.Size) -> None:
        self.shape = shape
        self._factor = Factor(matrix.unsqueeze(0))

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P], ascending."""
        return self._factor.values[0]

    def rotate(self, w: Tensor) -> Tensor:
        """``U^T w``, [P]."""
        return self._factor.vectors[0].T @ w.reshape(-1).to(self._factor.matrix)

    def unrotate(self, coefficients: Tensor) -> Tensor:
        """``U c``, in the parameter's shape."""
        return (self._factor.vectors[0] @ coefficients).reshape(self.shape)

    def to_dense(self) -> Tensor:
        """The matrix itself, [P, P]."""
        return self._factor.matrix[0]

    def scaled(self, factor: float) -> DenseBlock:
        """Return ``factor * H``."""
        return DenseBlock(self.to_dense() * factor, self.shape)

    def __add__(self, other: Block) -> DenseBlock:
        if not isinstance(other, DenseBlock) or other.shape != self.shape:
            raise TypeError("only the curvatures of the same parameter can be added")
        return DenseBlock(self.to_dense() + other.to_dense(), self.shape)


class DiagonalBlock(Block):
    """Curvature held as its diagonal.

    Args:
        diagonal: The diagonal of H in the parameter's shape; not negative.
    """

    def __init__(self, diagonal: Tensor) -> None:
        self.shape = diagonal.shape
        self._diagonal = diagonal.reshape(-1)

    @property
    def eigenvalues(self) -> Tensor:
        """The diagonal, [P]."""
        return self._diagonal

    def rotate(self, w: Tensor) -> Tensor:
        """The tensor itself, flattened to [P]."""
        return w.reshape(-1).to(self._diagonal)

    def unrotate(self, coefficients: Tensor) -> Tensor:
        """The coefficients in the parameter's shape."""
        return coefficients.reshape(self.shape)

    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]."""
        return torch.diag(self._diagonal)

    def scaled(self, factor: float) -> DiagonalBlock:
        """Return ``factor * H``."""
        return DiagonalBlock(self._diagonal.reshape(self.shape) * factor)

    def __add__(self, other: Block) -> DiagonalBlock:
        if not isinstance(other, DiagonalBlock) or other.shape != self.shape:
            raise TypeError("only the curvatures of the same parameter can be added")
        return DiagonalBlock((self._diagonal + other._diagonal).reshape(self.shape))

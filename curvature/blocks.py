"""Value objects: the curvature of one parameter, in a form that is cheap to work with.

All act on the row-major flattening of the parameter as it is stored. Index letters: ``P``
parameters, ``B`` blocks, ``I`` inputs of a block, ``O`` outputs of a block. ``delta`` is a prior
precision: a positive, finite number or a tensor of one element.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from curvature.factor import Factor, check_weight

Precision = float | Tensor
Reshape = Callable[[Tensor], Tensor]


def _positive(delta: Precision) -> Precision:
    value = torch.as_tensor(delta, dtype=torch.float64).detach()
    if value.numel() != 1 or not bool((value > 0) & torch.isfinite(value)):
        raise ValueError(f"delta is {delta}; a prior precision is one positive, finite number")
    return delta


class Block(ABC):
    """Symmetric positive semi-definite curvature ``H [P, P]`` of one parameter."""

    shape: torch.Size

    @property
    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of H, [P], in the order of `rotate`'s coefficients; never negative."""

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The matrices whose eigendecompositions the block rests on."""
        return ()

    @abstractmethod
    def _rotate(self, w: Tensor) -> Tensor:
        """``U^T w``, [P], of a tensor in the parameter's shape."""

    @abstractmethod
    def _unrotate(self, coefficients: Tensor) -> Tensor:
        """``U c`` of coefficients [P], with the parameter's elements in their order."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]."""

    @abstractmethod
    def scaled(self, factor: float) -> Block:
        """Curvature of a likelihood weighed by ``factor``: ``factor * H``.

        Raises:
            ValueError: If the factor is not positive and finite.
        """

    @abstractmethod
    def __add__(self, other: Block) -> Block:
        """Curvature of the union of two data sets."""

    def rotate(self, w: Tensor) -> Tensor:
        """Coefficients [P] of a parameter-shaped (or flattened) tensor in the eigenbasis.

        Raises:
            ValueError: If the tensor has another number of elements than the parameter.
        """
        self._check_size(w)
        return self._rotate(w.reshape(self.shape))

    def unrotate(self, coefficients: Tensor) -> Tensor:
        """Inverse of `rotate`: parameter-shaped tensor from coefficients [P].

        Raises:
            ValueError: If the number of coefficients is not the parameter's.
        """
        self._check_size(coefficients)
        return self._unrotate(coefficients.reshape(-1)).reshape(self.shape)

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
        device = "cpu" if generator is None else generator.device
        eps = torch.randn(lam.shape, generator=generator, dtype=torch.float64, device=device)
        return self.unrotate(eps.to(lam) / (lam + _positive(delta)).sqrt())

    def _check_size(self, w: Tensor) -> None:
        if w.numel() != self.shape.numel():
            raise ValueError(
                f"a tensor of shape {list(w.shape)} does not belong to a parameter of shape "
                f"{list(self.shape)}"
            )


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
        count: Number of terms in A (their total weight, where samples are weighed); dividing by it
            makes the product of the two sums an approximation of the sum of products (paper,
            App. C).
        layout: The parameter's arrangement as [B, O, I].
        corrected: Eigenvalues [B, O, I] that replace the products of the factors' eigenvalues
            (EKFAC, George et al. 2018), or None.

    Raises:
        ValueError: If the factors do not fit each other and the parameter, or the count is not
            positive.
    """

    def __init__(
        self,
        inputs: Factor,
        outputs: Factor,
        count: float,
        layout: Layout,
        corrected: Tensor | None = None,
    ) -> None:
        size = inputs.blocks * inputs.dim * outputs.dim
        if inputs.blocks != outputs.blocks or size != layout.shape.numel():
            raise ValueError(
                f"{inputs.blocks} input factors of size {inputs.dim} and {outputs.blocks} output "
                f"factors of size {outputs.dim} do not fit a parameter of shape "
                f"{list(layout.shape)}"
            )
        self.inputs, self.outputs, self.count = inputs, outputs, check_weight(count)
        self.layout, self.corrected = layout, corrected
        self.shape = layout.shape

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P]: products of the factors', or the corrected ones."""
        if self.corrected is not None:
            return self.corrected.reshape(-1)
        product = self.outputs.values.unsqueeze(-1) * self.inputs.values.unsqueeze(-2)
        return (product / self.count).reshape(-1)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Input and output factor."""
        return self.inputs, self.outputs

    def _rotate(self, w: Tensor) -> Tensor:
        blocks = self.layout.to_blocks(w.to(self.inputs.vectors))
        return (self.outputs.vectors.mT @ blocks @ self.inputs.vectors).reshape(-1)

    def _unrotate(self, coefficients: Tensor) -> Tensor:
        blocks = coefficients.to(self.inputs.vectors).reshape(-1, self.outputs.dim, self.inputs.dim)
        return self.layout.from_blocks(self.outputs.vectors @ blocks @ self.inputs.vectors.mT)

    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]; for a Linear weight this is ``kron(G, A) / count``."""
        if self.corrected is not None:
            lam = self.eigenvalues
            eye = torch.eye(len(lam), dtype=lam.dtype, device=lam.device)
            basis = torch.stack([self.unrotate(column).reshape(-1) for column in eye], dim=1)
            return (basis * lam) @ basis.T
        a, g = self.inputs.matrix, self.outputs.matrix
        # torch.kron cannot view factors of transposed strides
        pairs = zip(g.contiguous(), a.contiguous(), strict=True)
        blocks = [torch.kron(g_b, a_b) / self.count for g_b, a_b in pairs]
        size = self.shape.numel()
        index = self.layout.to_blocks(torch.arange(size, device=a.device).reshape(self.shape))
        dense = a.new_zeros(size, size)
        dense[index.reshape(-1, 1), index.reshape(1, -1)] = torch.block_diag(*blocks)
        return dense

    def scaled(self, factor: float) -> KroneckerBlocks:
        """Weigh every sample: both factors and the count times ``factor``, so ``factor * H``.

        The eigendecompositions are kept, and ``h.scaled(2) + k`` is ``h + h + k``.
        """
        factor = check_weight(factor)
        corrected = None if self.corrected is None else self.corrected * factor
        return KroneckerBlocks(
            self.inputs.scaled(factor),
            self.outputs.scaled(factor),
            self.count * factor,
            self.layout,
            corrected,
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

    Raises:
        ValueError: If the matrix does not fit the parameter.
    """

    def __init__(self, matrix: Tensor, shape: torch.Size) -> None:
        if matrix.shape != (shape.numel(), shape.numel()):
            raise ValueError(
                f"a matrix {list(matrix.shape)} does not fit a parameter of shape {list(shape)}"
            )
        self._factor, self.shape = Factor(matrix.unsqueeze(0)), shape

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues [P], ascending."""
        return self._factor.values[0]

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The matrix."""
        return (self._factor,)

    def _rotate(self, w: Tensor) -> Tensor:
        vectors = self._factor.vectors[0]
        return vectors.T @ w.reshape(-1).to(vectors)

    def _unrotate(self, coefficients: Tensor) -> Tensor:
        vectors = self._factor.vectors[0]
        return vectors @ coefficients.to(vectors)

    def to_dense(self) -> Tensor:
        """The matrix itself, [P, P]."""
        return self._factor.matrix[0]

    def scaled(self, factor: float) -> DenseBlock:
        """Return ``factor * H``."""
        return DenseBlock(self.to_dense() * check_weight(factor), self.shape)

    def __add__(self, other: Block) -> DenseBlock:
        if not isinstance(other, DenseBlock) or other.shape != self.shape:
            raise TypeError("only the curvatures of the same parameter can be added")
        return DenseBlock(self.to_dense() + other.to_dense(), self.shape)


class DiagonalBlock(Block):
    """Curvature held as its diagonal.

    Args:
        diagonal: The diagonal of H in the parameter's shape; not negative.

    Raises:
        ValueError: If an entry is negative, NaN or infinite.
    """

    def __init__(self, diagonal: Tensor) -> None:
        if not bool(((diagonal >= 0) & torch.isfinite(diagonal)).all()):
            raise ValueError("a curvature's diagonal must be finite and not negative")
        self.shape = diagonal.shape
        self._diagonal = diagonal.reshape(-1)

    @property
    def eigenvalues(self) -> Tensor:
        """The diagonal, [P]."""
        return self._diagonal

    def _rotate(self, w: Tensor) -> Tensor:
        return w.reshape(-1).to(self._diagonal)

    def _unrotate(self, coefficients: Tensor) -> Tensor:
        return coefficients.to(self._diagonal)

    def to_dense(self) -> Tensor:
        """The matrix H, [P, P]."""
        return torch.diag(self._diagonal)

    def scaled(self, factor: float) -> DiagonalBlock:
        """Return ``factor * H``."""
        return DiagonalBlock(self._diagonal.reshape(self.shape) * check_weight(factor))

    def __add__(self, other: Block) -> DiagonalBlock:
        if not isinstance(other, DiagonalBlock) or other.shape != self.shape:
            raise TypeError("only the curvatures of the same parameter can be added")
        return DiagonalBlock((self._diagonal + other._diagonal).reshape(self.shape))

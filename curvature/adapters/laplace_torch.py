"""laplace-torch on this package's curvature: a backend, and the matrix it returns.

laplace-torch's ``Kron`` holds one matrix, or one pair of factors, per parameter tensor. A rule may
state many pairs per tensor (one per channel or group), and a fallback a dense or diagonal block.
`BlockKron` therefore holds this package's value objects behind the interface of ``Kron``: nothing
is converted, so that determinants, solves and samples are those of `curvature.kronecker`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from curvature.adapters.extra import missing
from curvature.blocks import Block, KroneckerBlocks
from curvature.coverage import coverage
from curvature.kronecker import kronecker

try:
    from laplace import KronLaplace
    from laplace.curvature import GGNInterface
    from laplace.utils.matrix import Kron, KronDecomposed
except ModuleNotFoundError as error:
    raise missing("laplace-torch") from error

_LIKELIHOODS = {"classification": "categorical", "regression": "gaussian"}
# not ekfac: corrected eigenvalues of two batches cannot be added
_OPTIONS = ("estimator", "sharing", "fallback", "draws", "columns", "seed", "batch_size")


class BlockKron(Kron):
    """Curvature of the trainable parameters as value objects, with the interface of ``Kron``.

    Args:
        blocks: One value object per trainable parameter, in the order of ``model.parameters()``.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks = tuple(blocks)

    @property
    def kfacs(self) -> list[list[Tensor]]:  # type: ignore[override]
        """The same matrix as laplace-torch stores it: one or two factors per parameter.

        Several blocks, which it cannot store, become one dense matrix [P, P]; a diagonal is kept.
        It is what ``state_dict`` saves.
        """
        return [_stock_factors(block) for block in self.blocks]

    def __add__(self, other: Kron) -> BlockKron:
        if isinstance(other, BlockKron):
            return BlockKron(a + b for a, b in zip(self.blocks, other.blocks, strict=True))
        # the zeros that laplace-torch starts from; a saved matrix has lost what a sum needs
        if any(bool(factors[0].any()) for factors in other.kfacs):
            raise TypeError("a curvature that was loaded cannot be added to; fit all data again")
        return self

    def __mul__(self, scalar: float | Tensor) -> BlockKron:
        if isinstance(scalar, Tensor) and scalar.requires_grad:
            raise TypeError("this product has no gradient in the scalar; decompose() first")
        return BlockKron(block.scaled(float(scalar)) for block in self.blocks)

    # a sum that starts from laplace-torch's zeros ends up here
    __radd__ = __add__
    __rmul__ = __mul__

    def __len__(self) -> int:
        return len(self.blocks)

    def decompose(self, damping: bool = False) -> BlockKronDecomposed:
        """The matrix in its eigenbasis, to which prior precisions can be added.

        Raises:
            ValueError: If damping is asked for: it changes the determinants, and laplace-torch
                itself loses the flag before they are computed.
        """
        if damping:
            raise ValueError("damping=True is not supported; leave it out: nothing is damped")
        return BlockKronDecomposed(self.blocks)

    def logdet(self) -> Tensor:
        """Log determinant, []; minus infinity where the matrix is singular."""
        return self.decompose().logdet()

    def diag(self) -> Tensor:
        """The diagonal, [P]."""
        return self.decompose().diag()

    def to_matrix(self) -> Tensor:
        """The matrix, [P, P]."""
        out: Tensor = torch.block_diag(*(block.to_dense() for block in self.blocks))
        return out

    def _bmm(self, W: Tensor) -> Tensor:
        return self.decompose()._bmm(W, exponent=1)


def _stock_factors(block: Block) -> list[Tensor]:
    if not isinstance(block, KroneckerBlocks) or block.corrected is not None:
        return [block.to_dense()]
    g, a, count = block.outputs.matrix, block.inputs.matrix, block.count
    if a.shape[1:] == (1, 1) and len(g) == 1:
        return [g[0] * a[0] / count]
    index = torch.arange(block.shape.numel(), device=g.device).reshape(block.shape)
    in_order = torch.equal(block.layout.to_blocks(index).reshape(-1), index.reshape(-1))
    return [g[0], a[0] / count] if len(g) == 1 and in_order else [block.to_dense()]


class BlockKronDecomposed(KronDecomposed):
    """``scale * H + diag(deltas)`` with the interface of ``KronDecomposed``.

    Differentiable in the scale (the noise and the temperature) and in the deltas; laplace-torch's
    own class drops the graph of the scale.

    Args:
        blocks: One value object per trainable parameter.
        scale: Factor of the curvature, [].
        deltas: Prior precisions, one for each parameter tensor, [len(blocks)], or None for zeros.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...],
        scale: float | Tensor = 1.0,
        deltas: Tensor | None = None,
    ) -> None:
        self.blocks, self.scale = blocks, scale
        self.deltas = blocks[0].eigenvalues.new_zeros(len(blocks)) if deltas is None else deltas

    def __len__(self) -> int:
        return len(self.blocks)

    def __add__(self, deltas: Tensor) -> BlockKronDecomposed:
        self._check_deltas(deltas)
        return BlockKronDecomposed(self.blocks, self.scale, self.deltas + deltas)

    def __mul__(self, scalar: float | Tensor) -> BlockKronDecomposed:
        return BlockKronDecomposed(self.blocks, self.scale * scalar, self.deltas)

    __radd__ = __add__
    __rmul__ = __mul__

    def _spectra(self) -> Iterator[tuple[Block, Tensor]]:
        """Each block and the eigenvalues [P] of its part of the sum."""
        for block, delta in zip(self.blocks, self.deltas, strict=True):
            yield block, self.scale * block.eigenvalues + delta

    def logdet(self) -> Tensor:
        """Log determinant, []."""
        return torch.stack([values.log().sum() for _, values in self._spectra()]).sum()

    def _bmm(self, W: Tensor, exponent: float = -1) -> Tensor:
        """``self ** exponent`` times the last axis of W [batch, K, P]."""
        parts, start = [], 0
        for block, values in self._spectra():
            stop = start + len(values)
            parts.append(_apply(block, values**exponent, W[..., start:stop]))
            start = stop
        return torch.cat(parts, dim=-1)

    def diag(self, exponent: float = 1) -> Tensor:
        """The diagonal of ``self ** exponent``, [P]; forms one dense block after the other."""
        return torch.cat([m.diagonal() for m in self._dense(exponent)])

    def to_matrix(self, exponent: float = 1) -> Tensor:
        """The matrix ``self ** exponent``, [P, P]."""
        out: Tensor = torch.block_diag(*self._dense(exponent))
        return out

    def _dense(self, exponent: float) -> Iterator[Tensor]:
        for block, values in self._spectra():
            eye = torch.eye(len(values), dtype=values.dtype, device=values.device)
            yield _apply(block, values**exponent, eye)


def _apply(block: Block, values: Tensor, w: Tensor) -> Tensor:
    """``U diag(values) U^T w`` along the last axis of w [..., P]; U is the block's eigenbasis."""

    def one(v: Tensor) -> Tensor:
        return block.unrotate(values * block.rotate(v)).reshape(-1)

    out: Tensor = torch.vmap(one)(w.reshape(-1, w.shape[-1]))
    return out.reshape(w.shape).to(w)


class _Nothing(Kron):
    """The sum of no curvature; unlike laplace-torch's it takes no memory and knows no shapes."""

    def __add__(self, other: Kron) -> Kron:
        if isinstance(other, BlockKron):
            return other + self
        # factors are here after a load
        return super().__add__(other) if self.kfacs else other


class BlockLaplace(KronLaplace):
    """``laplace.KronLaplace`` without its limits on the shapes of parameters.

    ``KronLaplace`` starts from zeros of the shapes that it knows: it refuses parameters of five or
    more axes, and for a factored fully-connected layer allocates a matrix that is never used. Get
    this one by ``Laplace(..., hessian_structure="blocks", backend=SymlearnGGN)``.
    """

    # without a key of its own, Laplace(...) would pick this class or its parent by chance
    _key = ("all", "blocks")

    def _init_H(self) -> None:
        self.H = _Nothing([])


class SymlearnGGN(GGNInterface):
    """Curvature backend: ``laplace.Laplace(model, ..., backend=SymlearnGGN)``.

    Works on any network whose modules have curvature rules, relaxed ones included. In laplace-torch
    every trainable parameter takes part: freeze those that are to stay as they are.

    Args:
        model: The network.
        likelihood: "classification" or "regression".
        last_layer: Only the last layer's curvature; laplace-torch sets it.
        subnetwork_indices: Used by the dense structures only; laplace-torch sets it.
        dict_key_x: For networks that take mappings, which this backend does not.
        dict_key_y: As dict_key_x.
        options: Options of `curvature.kronecker`: estimator, sharing, fallback, draws, columns,
            seed, batch_size. Pass them as ``backend_kwargs={"fallback": "diagonal"}``.

    Raises:
        UncoveredParameterError: If trainable parameters have no rule and no fallback is chosen.
        ValueError: If trainable parameters are held fixed by this package (normalisation scales),
            or for an unknown likelihood.
        TypeError: For an unknown option.

    Example:
        >>> import torch, laplace
        >>> from curvature.adapters.laplace_torch import SymlearnGGN
        >>> net = torch.nn.Linear(3, 2)
        >>> data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randint(2, (8,)))
        >>> la = laplace.Laplace(net, "classification", "all", "kron", backend=SymlearnGGN)
        >>> la.fit(torch.utils.data.DataLoader(data, batch_size=4))
        >>> bool(la.log_marginal_likelihood() < 0)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        likelihood: str,
        last_layer: bool = False,
        subnetwork_indices: torch.LongTensor | None = None,
        dict_key_x: str = "input_ids",
        dict_key_y: str = "labels",
        **options: Any,
    ) -> None:
        if likelihood not in _LIKELIHOODS:
            raise ValueError(f"likelihood is {likelihood!r}; choose one of {sorted(_LIKELIHOODS)}")
        if not set(options) <= set(_OPTIONS):
            raise TypeError(f"unknown options {sorted(set(options) - set(_OPTIONS))}; {_OPTIONS}")
        super().__init__(model, likelihood, last_layer, subnetwork_indices, dict_key_x, dict_key_y)
        self.options = options
        ids = {id(p) for p in self.params}
        self._names = [name for name, p in model.named_parameters() if id(p) in ids]
        table = coverage(self._model, fallback=options.get("fallback", "error"))
        trainable = {name for name, p in self._model.named_parameters() if p.requires_grad}
        fixed = sorted(trainable & set(table.names("fixed")))
        if fixed:
            raise ValueError(
                f"these trainable parameters have no curvature: {fixed}; laplace-torch would give "
                "them a posterior equal to the prior. Freeze them (requires_grad_(False)) before "
                "the Laplace object is made"
            )

    def kron(self, x: Any, y: Tensor, N: int, **kwargs: Any) -> tuple[Tensor, BlockKron]:
        """Loss and curvature of one batch, summed over its samples.

        Args:
            x: Inputs [M, ...], a tensor.
            y: Class indices [M], or regression targets [M, K].
            N: Number of samples of all batches; the value objects count theirs themselves.
            kwargs: Not used.

        Returns:
            The loss as laplace-torch defines it (half the squared error for regression), and the
            curvature.

        Raises:
            TypeError: For inputs in a mapping.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"inputs are a {type(x).__name__}; this backend takes tensors only")
        options = {"seed": int(torch.randint(2**31, ())), **self.options}
        likelihood = _LIKELIHOODS[self.likelihood]
        found = kronecker(self.model, (x, y), likelihood, only=self._names, **options)
        loss = -found.log_likelihood
        if likelihood == "gaussian":  # laplace-torch adds the normaliser itself
            loss -= 0.5 * math.log(2 * math.pi) * y.numel()
        total = torch.tensor(loss, dtype=self.params[0].dtype, device=self.params[0].device)
        return total, BlockKron(found[name] for name in self._names)

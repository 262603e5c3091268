"""The laws of a curvature value object: inherit `BlockLaws` and say how blocks are made."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from curvature import Block
from tests.oracles import assert_near

DELTAS = (1e-8, 1e-3, 1.0, 30.0, 1e12)
BAD_DELTAS = (0.0, -1.0, math.nan, math.inf, torch.tensor(math.nan), torch.ones(2))
METHODS: dict[str, Callable[[Block, float], object]] = {
    "logdet": lambda block, delta: block.logdet(delta),
    "effective_dim": lambda block, delta: block.effective_dim(delta),
    "solve": lambda block, delta: block.solve(torch.zeros(block.shape), delta),
    "sample": lambda block, delta: block.sample(delta),
}


class BlockLaws:
    """Laws of every `curvature.Block`, against dense linear algebra in float64.

    A subclass overrides `blocks`; blocks are of small, float64, possibly singular matrices.
    """

    addable = True

    def blocks(self) -> dict[str, Block]:
        """Blocks to test, by name."""
        raise NotImplementedError

    def each(self) -> list[tuple[Block, Tensor]]:
        return [(block, block.to_dense()) for block in self.blocks().values()]

    def parameter(self, block: Block, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(block.shape, generator=generator, dtype=torch.float64)

    def test_matrix_is_symmetric_of_the_parameters_size(self) -> None:
        for block, dense in self.each():
            assert dense.shape == (block.shape.numel(),) * 2
            assert_near(dense, dense.T, 1e-14)

    def test_eigenvalues(self) -> None:
        for block, dense in self.each():
            assert bool((block.eigenvalues >= 0).all())
            assert_near(block.eigenvalues.sort().values, torch.linalg.eigvalsh(dense), 1e-12)

    @pytest.mark.parametrize("delta", DELTAS)
    def test_logdet(self, delta: float) -> None:
        for block, dense in self.each():
            posterior = dense + delta * torch.eye(len(dense), dtype=dense.dtype)
            want = torch.linalg.slogdet(posterior).logabsdet
            # rounding in the dense matrix, of size eps * its norm, is large beside a small delta
            noise = len(dense) * 1e-14 * float(dense.diagonal().max()) / delta
            assert abs(float(block.logdet(delta) - want)) <= 1e-10 * abs(float(want)) + noise

    @pytest.mark.parametrize("delta", DELTAS)
    def test_effective_dim(self, delta: float) -> None:
        for block, dense in self.each():
            posterior = dense + delta * torch.eye(len(dense), dtype=dense.dtype)
            want = torch.linalg.solve(posterior, dense).trace()
            noise = len(dense) * 1e-14 * float(dense.diagonal().max()) / delta
            assert abs(float(block.effective_dim(delta) - want)) <= 1e-10 * float(want) + noise
            assert 0 <= float(block.effective_dim(delta)) <= len(dense)

    def test_a_tensor_will_do_for_delta_and_gets_its_gradient(self) -> None:
        for block, dense in self.each():
            delta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
            (slope,) = torch.autograd.grad(block.logdet(delta), delta)
            posterior = dense + 0.7 * torch.eye(len(dense), dtype=dense.dtype)
            assert_near(slope, torch.linalg.inv(posterior).trace(), 1e-10)

    def test_rotate_and_unrotate_are_inverse(self) -> None:
        for block, _ in self.each():
            w = self.parameter(block)
            assert_near(block.unrotate(block.rotate(w)), w, 1e-12)
            c = w.reshape(-1)
            assert_near(block.rotate(block.unrotate(c)), c, 1e-12)

    def test_rotation_is_orthogonal_and_diagonalises(self) -> None:
        for block, dense in self.each():
            v, w = self.parameter(block, 1), self.parameter(block, 2)
            assert_near(block.rotate(v) @ block.rotate(w), (v * w).sum(), 1e-11)
            want = v.reshape(-1) @ dense @ w.reshape(-1)
            got = (block.rotate(v) * block.eigenvalues * block.rotate(w)).sum()
            size = float(dense.diagonal().sum() * v.norm() * w.norm())
            assert abs(float(got - want)) <= 1e-12 * size

    def test_flattened_and_narrow_parameters_will_do(self) -> None:
        for block, _ in self.each():
            w = self.parameter(block)
            assert_near(block.rotate(w.reshape(-1)), block.rotate(w), 1e-15)
            assert block.rotate(w.float()).dtype == torch.float64
            assert_near(block.rotate(w.float()), block.rotate(w), 1e-6)

    @pytest.mark.parametrize("delta", DELTAS)
    def test_solve(self, delta: float) -> None:
        for block, dense in self.each():
            w = self.parameter(block)
            got = block.solve(w, delta)
            assert got.shape == block.shape
            # the residual, not the solution: the matrix may be singular to working precision
            posterior = dense + delta * torch.eye(len(dense), dtype=dense.dtype)
            back = (posterior @ got.reshape(-1)).reshape(block.shape)
            noise = 1e-13 * float(dense.diagonal().sum()) / delta
            assert float((back - w).abs().max()) <= (1e-11 + noise) * float(w.abs().max())
            if delta >= 1e-3:
                want = torch.linalg.solve(posterior, w.reshape(-1)).reshape(block.shape)
                assert_near(got, want, 1e-11 + noise)

    def test_sample_has_the_posteriors_covariance(self) -> None:
        for block, dense in self.each():
            generator, n = torch.Generator().manual_seed(0), 2000
            draws = torch.stack([block.sample(0.5, generator).reshape(-1) for _ in range(n)])
            posterior = dense + 0.5 * torch.eye(len(dense), dtype=dense.dtype)
            white = draws @ torch.linalg.cholesky(posterior)
            want = torch.eye(len(dense), dtype=dense.dtype)
            # an entry of the covariance of n white draws has a standard error of at most (2/n)^.5
            assert float((white.T @ white / n - want).abs().max()) < 5 * (2 / n) ** 0.5
            assert float(white.mean(0).abs().max()) < 5 / n**0.5

    def test_sample_repeats_with_its_generator(self) -> None:
        for block, _ in self.each():
            first = block.sample(2.0, torch.Generator().manual_seed(3))
            assert first.shape == block.shape
            assert torch.equal(first, block.sample(2.0, torch.Generator().manual_seed(3)))
            assert not torch.equal(first, block.sample(2.0, torch.Generator().manual_seed(4)))

    @pytest.mark.parametrize("factor", [0.25, 3.0, 1e6])
    def test_scaled(self, factor: float) -> None:
        for block, dense in self.each():
            scaled = block.scaled(factor)
            assert_near(scaled.to_dense(), dense * factor, 1e-13)
            assert_near(scaled.eigenvalues, block.eigenvalues * factor, 1e-13)
            assert_near(scaled.scaled(1 / factor).to_dense(), dense, 1e-13)

    def test_sum_with_itself_is_twice(self) -> None:
        for block, dense in self.each():
            if self.addable:
                assert_near((block + block).to_dense(), 2 * dense, 1e-13)
            else:
                with pytest.raises(TypeError, match="cannot be added"):
                    block + block

    def test_weights_count_as_repetitions(self) -> None:
        blocks = list(self.blocks().values())
        for a in blocks if self.addable else ():
            for b in (other for other in blocks if other.shape == a.shape):
                assert_near((a.scaled(2) + b).to_dense(), (a + a + b).to_dense(), 1e-13)
                assert_near((a + b).to_dense(), (b + a).to_dense(), 1e-13)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("delta", BAD_DELTAS, ids=str)
    def test_bad_delta(self, method: str, delta: float) -> None:
        for block, _ in self.each():
            with pytest.raises(ValueError, match="one positive, finite number"):
                METHODS[method](block, delta)

    @pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
    def test_bad_factor(self, factor: float) -> None:
        for block, _ in self.each():
            with pytest.raises(ValueError, match="must be positive and finite"):
                block.scaled(factor)

    def test_foreign_parameter(self) -> None:
        for block, _ in self.each():
            wrong = torch.zeros(block.shape.numel() + 1)
            for method in (block.rotate, block.unrotate, lambda w, b=block: b.solve(w, 1.0)):
                with pytest.raises(ValueError, match="does not belong to a parameter of shape"):
                    method(wrong)

    def test_foreign_block_cannot_be_added(self) -> None:
        class Foreign(Block):
            shape = torch.Size([1])
            eigenvalues = torch.ones(1)
            _rotate = _unrotate = scaled = to_dense = __add__ = None  # type: ignore[assignment]

        for block, _ in self.each():
            with pytest.raises(TypeError, match="the same parameter"):
                block + Foreign()

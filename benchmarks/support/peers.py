"""Kronecker curvature by the peers, through laplace-torch, as a user would call them.

Each entry of `FITS` makes a function that fits a `Laplace` object to batches, eigendecomposition
included. The networks must have their circular padding as a module of its own (see `nets`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from benchmarks.support.harness import Missing, peer
from benchmarks.support.nets import Batches

Fit: TypeAlias = Callable[[Batches], Any]


def fits(net: nn.Module, names: Sequence[str]) -> dict[str, Fit | Missing]:
    """The named peers' fits of (copies of) a network.

    Args:
        net: The network.
        names: Keys of `FITS`.
    """
    return {name: _fit(net, *FITS[name]) for name in names}


def _fit(
    net: nn.Module, packages: Sequence[str], backend: Callable[[], Any], stochastic: bool | None
) -> Fit | Missing:
    def build() -> Fit:
        with _quiet():
            from laplace import Laplace

            found: Any = Laplace(
                copy.deepcopy(net),
                "classification",
                subset_of_weights="all",
                hessian_structure="kron",
                backend=backend(),
                backend_kwargs={} if stochastic is None else {"stochastic": stochastic},
            )

        def fit(batches: Batches) -> Any:
            with _quiet():
                found.fit(batches)
            return found

        return fit

    return peer(["laplace", *packages], build)


@contextmanager
def _quiet() -> Iterator[None]:
    """The peers use parts of torch that it is about to give up, and it says so at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _backend(name: str) -> Any:
    import laplace.curvature

    return getattr(laplace.curvature, name)


def _backpack_backend() -> Any:
    """BackPackGGN with extensions that know circular padding; the stock one refuses the module."""
    from backpack.core.derivatives.basederivatives import BaseDerivatives
    from backpack.extensions import KFAC, KFLR
    from backpack.extensions.secondorder.hbp.hbpbase import HBPBaseModule
    from laplace.curvature import BackPackGGN

    class CircularPad(BaseDerivatives):  # type: ignore[misc]
        def hessian_is_zero(self, module: nn.Module) -> bool:
            return True

        def _jac_t_mat_prod(
            self, module: Any, g_inp: Any, g_out: Any, mat: Tensor, subsampling: Any = None
        ) -> Tensor:
            return unpad_transposed(mat, module.padding)

    class Exact(KFLR):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.set_module_extension(nn.CircularPad2d, HBPBaseModule(derivatives=CircularPad()))

    class Sampled(KFAC):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.set_module_extension(nn.CircularPad2d, HBPBaseModule(derivatives=CircularPad()))

    class Backend(BackPackGGN):
        def kron(self, x: Any, y: Tensor, N: int, **kwargs: Any) -> Any:
            from backpack import backpack

            loss = self.lossfunc(self.model(x), y)
            with backpack(Sampled() if self.stochastic else Exact()):
                loss.backward()
            kron = self._rescale_kron_factors(self._get_kron_factors(), len(y), N)
            return self.factor * loss.detach(), self.factor * kron

    return Backend


def unpad_transposed(mat: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Transpose of circular padding: borders [..., H, W] are added back where they came from.

    Args:
        mat: What arrives at the padded image, [..., top + H + bottom, left + W + right].
        padding: Left, right, top, bottom, as `nn.CircularPad2d` keeps them.

    Returns:
        The sum at the image, [..., H, W].
    """
    left, right, top, bottom = padding
    rows = _fold(mat.movedim(-1, -2), left, right).movedim(-1, -2)
    return _fold(rows, top, bottom)


def _fold(mat: Tensor, before: int, after: int) -> Tensor:
    """Add the first and last rows of [..., rows, columns] to the other end, and cut them off."""
    end = mat.shape[-2] - after
    inner = mat[..., before:end, :].clone()
    if before:
        inner[..., -before:, :] += mat[..., :before, :]
    if after:
        inner[..., :after, :] += mat[..., end:, :]
    return inner


FITS: dict[str, tuple[Sequence[str], Callable[[], Any], bool | None]] = {
    "asdl": (["asdl"], partial(_backend, "AsdlGGN"), False),
    "curvlinops": (["curvlinops"], partial(_backend, "CurvlinopsGGN"), False),
    "BackPACK": (["backpack"], _backpack_backend, False),
    "asdl, MC": (["asdl"], partial(_backend, "AsdlGGN"), True),
    "curvlinops, MC": (["curvlinops"], partial(_backend, "CurvlinopsGGN"), True),
    "BackPACK, MC": (["backpack"], _backpack_backend, True),
    "asdl, empirical": (["asdl"], partial(_backend, "AsdlEF"), None),
    "curvlinops, empirical": (["curvlinops"], partial(_backend, "CurvlinopsEF"), None),
}

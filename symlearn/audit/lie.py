"""The Lie derivative of a network, and the local equivariance error (LEE).

    L f(x) = d/dt rho_2(t)^{-1} f(rho_1(t) x) at t = 0  =  df(x)[A_1 x] - A_2 f(x)

with the generators A_1 on images and A_2 on outputs (Gruver et al. 2023, Eq. 4.3). ``A_2`` moves
outputs that are images, and is zero for vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from symlearn.audit import images
from symlearn.audit.layouts import VECTOR, Layout, output_layout
from symlearn.audit.transforms import Transformation

FORWARD, DOUBLE = "forward mode", "double backward"
"""How a directional derivative was computed."""

_AGREEMENT = 1e-2  # between w . J v and J^T w . v, far above rounding


class NoDerivativeError(ValueError):
    """A network that can be differentiated in neither way."""


@dataclass(frozen=True)
class LieDerivative:
    """Size of a network's Lie derivative over the data, with standard errors over images.

    The two norms are different measurements: published figures are of either kind.

    Attributes:
        transform: Name of the transformation.
        unit: Unit of its parameter.
        mean_abs: Mean over images of ``||L f||_1 / dim(V_2)``, the mean absolute value.
        mean_abs_error: Its standard error, nan for one image.
        mean_square: LEE: mean over images of ``||L f||^2 / dim(V_2)`` (Eq. 4.4).
        mean_square_error: Its standard error, nan for one image.
        output_square: Mean over images of ``||f||^2 / dim(V_2)``, to compare with.
        n_images: Number of images.
        output_dim: ``dim(V_2)``, numbers in an output.
        method: "forward mode" or "double backward".
    """

    transform: str
    unit: str
    mean_abs: float
    mean_abs_error: float
    mean_square: float
    mean_square_error: float
    output_square: float
    n_images: int
    output_dim: int
    method: str


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention from elementary operations: the fused kernels have no forward-mode derivative."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch's own forward mode compiles its rules with what torch deprecates
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        yield


def directional(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, str]:
    """``f(x)``, its derivative at x along v, and how that was computed.

    Forward mode where every operation has it; otherwise two backward passes, the second through
    the first's dependence on its vector.

    Args:
        f: A function.
        x: Where.
        v: The direction, in the shape of x.

    Raises:
        NoDerivativeError: If neither way works; both reasons are given, and name the operation.
    """
    with plain_attention():
        with torch.no_grad():
            f(x)  # errors that have nothing to do with derivatives come up as they are
        try:
            y, dy = torch.func.jvp(f, (x,), (v,))  # type: ignore[misc]
            return y.detach(), dy.detach(), FORWARD
        except RuntimeError as error:
            forward = error  # NotImplementedError is one
        try:
            y, dy = _double_backward(f, x, v)
        except RuntimeError as error:
            raise NoDerivativeError(
                "the network has no directional derivative: in forward mode: "
                f"{_first_line(forward)}; by double backward: {_first_line(error)}. Give the "
                "operation a forward-mode derivative (jvp), or one that can be differentiated twice"
            ) from error
        return y, dy, DOUBLE


def _double_backward(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``J v`` as the derivative of ``w -> J^T w`` along v."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = f(x)
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y).requires_grad_()
        if not y.requires_grad:
            raise RuntimeError("the output is cut off from the input (detached, or no_grad)")
        (back,) = torch.autograd.grad(y, x, w, create_graph=True)
        if back.requires_grad:
            (dy,) = torch.autograd.grad(back, w, v, materialize_grads=True)
        else:
            dy = torch.zeros_like(y)
    # autograd passes by operations that cannot be differentiated twice without a word
    left, right = w.detach() * dy, back.detach() * v
    if not bool((left.sum() - right.sum()).abs() <= _AGREEMENT * (left.norm() + right.norm())):
        raise RuntimeError("the backward pass of an operation cannot be differentiated again")
    return y.detach(), dy


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def derivative(
    f: Callable[[Tensor], Tensor], x: Tensor, transform: Transformation, output: str = "auto"
) -> tuple[Tensor, Tensor, str]:
    """``f(x)``, the Lie derivative of f at x (both [N, ...]), and how it was computed.

    Args:
        f: A function of images.
        x: Images [N, C, H, W].
        transform: The transformation.
        output: How it acts on outputs: "auto", "image" or "vector" (see `acting_on`).

    Raises:
        NoDerivativeError: If f cannot be differentiated.
        ValueError: If f does not return one finite row per image.
    """
    y, dy, method = directional(f, x, transform.generator(x))
    layout = acting_on(y, transform, output)
    what = f"the Lie derivative along {transform.name}"
    return y, images.check_finite(dy - layout.derive(y, transform.generator), what), method


def acting_on(y: Tensor, transform: Transformation, output: str) -> Layout:
    """How a transformation acts on outputs.

    With "auto", spatial transformations act on outputs [N, C, H, W], and transformations of values
    on none.
    """
    if output == "auto" and not transform.spatial:
        return VECTOR
    return output_layout(y, output)


def lie_derivative(
    model: nn.Module,
    x: Tensor,
    transform: Transformation,
    *,
    link: str = "identity",
    output: str = "auto",
) -> Tensor:
    """The Lie derivative of a network at images, ``L f(x)`` [N, ...].

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        transform: The transformation.
        link: "identity" or "softmax".
        output: How the transformation acts on outputs: "auto", "image" or "vector".

    Raises:
        NoDerivativeError: If the network cannot be differentiated.
        ValueError: If the network does not return one finite row per image.

    Example:
        >>> import torch
        >>> from symlearn.audit.lie import lie_derivative
        >>> from symlearn.audit.transforms import TRANSFORMATIONS
        >>> x = torch.rand(2, 3, 8, 8)
        >>> same = lie_derivative(torch.nn.Identity(), x, TRANSFORMATIONS["rotation"])
        >>> bool((same == 0).all())
        True
    """
    with images.frozen(model):
        return derivative(lambda v: images.outputs(model, v, link), x, transform, output)[1]


def measure(
    model: nn.Module,
    x: Tensor,
    transform: Transformation,
    *,
    link: str = "identity",
    output: str = "auto",
    batch: int = 32,
) -> LieDerivative:
    """Both norms of a network's Lie derivative over the data.

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        transform: The transformation.
        link: "identity" or "softmax".
        output: How the transformation acts on outputs: "auto", "image" or "vector".
        batch: Images per batch.

    Raises:
        NoDerivativeError: If the network cannot be differentiated.
        ValueError: If the network does not return one finite row per image.
    """
    sizes, methods = [], set[str]()
    with images.frozen(model):
        for part in x.split(batch):
            y, lie, method = derivative(
                lambda v: images.outputs(model, v, link), part, transform, output
            )
            rows = lie.flatten(1).double(), y.flatten(1).double()
            norms = [rows[0].abs().mean(1), rows[0].square().mean(1), rows[1].square().mean(1)]
            sizes.append(torch.stack(norms, 1))
            methods.add(method)
    each = torch.cat(sizes)
    mean, error = each.mean(0).tolist(), standard_error(each).tolist()
    return LieDerivative(
        transform.name,
        transform.unit,
        *(mean[0], error[0], mean[1], error[1], mean[2]),
        n_images=len(x),
        output_dim=rows[0].shape[1],
        method=DOUBLE if DOUBLE in methods else FORWARD,
    )


def standard_error(each: Tensor) -> Tensor:
    """Standard error of the mean over the first axis; nan for one entry."""
    if len(each) == 1:
        return torch.full_like(each[0], float("nan"))
    error: Tensor = each.std(0) / len(each) ** 0.5
    return error

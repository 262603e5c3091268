"""Exponential basis functions on a grid: a few anchor values in place of one value per site.

    s(p) = sum_j u_j phi_j(p)        phi_j(p) = exp(-omega^2 |p - z_j|^2)        (paper, Sec. 3.1)

Sites p are counted from zero on each axis, so omega is in units of one over a site. Index letters:
``S`` sites, ``M`` anchors, ``p`` a site, ``z_j`` the place of an anchor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import curvature

CONTROLS = ("u", "omega")
_DEPENDENT = 1e-6  # of the largest eigenvalue of Phi^T Phi: functions that others are sums of


@dataclass(frozen=True)
class BasisOptions:
    """Options of sparse paths: how few anchors, where they are, how wide their functions.

    Args:
        anchors: Number of anchors per grid, the share of its sites in (0, 1] (rounded upwards), or
            None for half of the sites, rounded upwards (paper, App. F.4).
        omega: Initial inverse lengthscale, in units of one over a site, or None for the inverse of
            the mean distance between neighbouring anchors.
        learn_omega: Whether omega is learned, as a hyperparameter without a prior.
        learn_anchors: Whether the places of the anchors are learned, as hyperparameters.
        control: What controls the symmetry (paper, Sec. 3.2): the prior on the anchor values "u"
            alone, or also a prior on "omega", which is then a weight with a variance of its own. In
            the limit of no variance omega is zero, and the functions are constant.
        anchor_seed: Seed of the layout of the anchors.

    Raises:
        ValueError: For anchors that are not positive, a share above one, an omega that is negative
            or not finite, or an unknown control.
        TypeError: For anchors that are not a number.
    """

    anchors: int | float | None = None
    omega: float | None = None
    learn_omega: bool = False
    learn_anchors: bool = False
    control: str = "u"
    anchor_seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.anchors, bool) or not isinstance(self.anchors, (int, float, type(None))):
            raise TypeError(f"anchors is {self.anchors!r}; {_ACCEPTED}")
        whole = isinstance(self.anchors, int)
        if self.anchors is not None and not 0 < self.anchors <= (math.inf if whole else 1):
            raise ValueError(f"anchors is {self.anchors!r}; {_ACCEPTED}")
        if self.omega is not None and not 0 <= self.omega < math.inf:
            raise ValueError(f"omega is {self.omega!r}; give a finite number that is not negative")
        if self.control not in CONTROLS:
            raise ValueError(f"unknown control {self.control!r}; choose one of {list(CONTROLS)}")

    @property
    def learns_omega(self) -> bool:
        """Whether omega is a parameter, with a prior or without."""
        return self.learn_omega or self.control == "omega"

    def count(self, size: tuple[int, ...]) -> int:
        """Number of anchors M on a grid."""
        if isinstance(self.anchors, int):
            return self.anchors
        return math.ceil((0.5 if self.anchors is None else self.anchors) * math.prod(size))

    def too_many(self, what: str, size: tuple[int, ...]) -> list[str]:
        """Why a grid cannot have as many anchors, one sentence; none if it can.

        Args:
            what: Name of the grid in the sentence.
            size: Its size.
        """
        sites = math.prod(size)
        if self.count(size) <= sites:
            return []
        shape = "x".join(map(str, size))
        return [
            f"anchors is {self.anchors}, but its {what} has {sites} positions ({shape}); give a "
            f"whole number from 1 to {sites}, or a share of the positions such as 0.5"
        ]

    def n_learned(self, size: tuple[int, ...]) -> int:
        """Number of parameters beside the anchor values: omega and places, where learned."""
        places = len(size) * self.count(size) if self.learn_anchors else 0
        return places + int(self.learns_omega)


_ACCEPTED = "give a whole number from 1 to the number of positions, a share in (0, 1], or None"


def grid_sites(size: tuple[int, ...]) -> Tensor:
    """Coordinates of all sites of a grid in row-major order, [S, axes] (float64, on the CPU)."""
    axes = [torch.arange(s, dtype=torch.float64, device="cpu") for s in size]
    return torch.cartesian_prod(*axes).reshape(-1, len(size))


def spread(size: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Sites of a grid that are spread evenly over it, [M, axes], in row-major order.

    Each anchor in turn is put on the site farthest from all before it, the first in the middle
    (Gonzalez 1985), and of equally far sites on the least crowded one. So every site is at most as
    far from its anchor as the closest two anchors are from each other, and no two are at one place.

    Args:
        size: Size of the grid.
        count: Number of anchors M.
        seed: Decides between sites that are equally good.

    Raises:
        ValueError: If there are fewer sites than anchors, or no anchor.
    """
    places = grid_sites(size)
    if not 1 <= count <= len(places):
        raise ValueError(
            f"{count} anchors on a grid of {len(places)} positions; give 1 to {len(places)}"
        )
    generator = torch.Generator().manual_seed(seed)
    luck = torch.rand(len(places), generator=generator, dtype=torch.float64, device="cpu") * 1e-9
    chosen = [int(((places - places[-1] / 2).square().sum(1) - luck).argmin())]
    nearest, crowd = torch.full_like(luck, math.inf), torch.zeros_like(luck)
    while len(chosen) < count:
        far = (places - places[chosen[-1]]).square().sum(1)
        nearest, crowd = nearest.minimum(far), crowd + (1 + far).pow(-2)
        # squared distances between sites are whole numbers: less than one only breaks ties
        chosen.append(int((nearest - crowd / (1 + crowd) + luck).argmax()))
    return places[sorted(chosen)]


def initial_omega(size: tuple[int, ...], count: int) -> float:
    """One over the mean distance of neighbouring anchors, in units of one over a site."""
    axes = sum(s > 1 for s in size)
    return float((count / math.prod(size)) ** (1 / max(1, axes)))


def evaluate(sites: Tensor, anchors: Tensor, omega: Tensor) -> Tensor:
    """``exp(-omega^2 |p - z|^2)``, [S, M].

    Args:
        sites: Coordinates p, [S, axes].
        anchors: Places z, [M, axes].
        omega: Inverse lengthscale, [].
    """
    return torch.exp(-omega.square() * (sites[:, None] - anchors).square().sum(2))


class _Known(torch.autograd.Function):
    """`evaluate` where the values are known: gradients without evaluating once more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(sites: Tensor, anchors: Tensor, omega: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # the output, not the given values: second derivatives go through it
        ctx.save_for_backward(*inputs[:3], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor, Tensor, None]:
        sites, anchors, omega, values = ctx.saved_tensors
        offset, slope = sites[:, None] - anchors, g * values  # [S, M, axes], [S, M]
        pull = 2 * omega.square() * torch.einsum("sm,sma->ma", slope, offset)
        return None, pull, -2 * omega * (slope * offset.square().sum(2)).sum(), None


@dataclass(frozen=True)
class _Evaluation:
    """Values [S, M] and what they were computed from; it is held, so that memory is not reused."""

    sources: tuple[Tensor, ...]
    key: tuple[Any, ...]
    values: Tensor


class Basis(nn.Module):
    """Exponential basis functions at the sites of a grid.

    They are evaluated once per change of omega or of the anchors' places, and kept. Like autograd,
    this does not see values that are written through ``.data``.

    Args:
        size: Size of the grid.
        options: Number and layout of the anchors, and what is learned.

    Attributes:
        anchors: Places z, [M, axes]; a parameter if learned, otherwise a buffer.
        omega: Inverse lengthscale, []; a parameter if learned, otherwise a buffer.
        options: As given.

    Raises:
        ValueError: If there are more anchors than sites.

    Example:
        >>> from symlearn.basis import Basis, BasisOptions
        >>> basis = Basis((3, 3), BasisOptions())
        >>> basis.anchors.tolist()
        [[0.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, 0.0], [2.0, 2.0]]
        >>> basis.matrix().shape
        torch.Size([9, 5])
    """

    sites: Tensor
    anchors: Tensor
    omega: Tensor

    def __init__(self, size: tuple[int, ...], options: BasisOptions) -> None:
        super().__init__()
        self.options, count = options, options.count(size)
        omega = initial_omega(size, count) if options.omega is None else options.omega
        dtype = torch.get_default_dtype()
        self.register_buffer("sites", grid_sites(size).to(dtype), persistent=False)
        places = spread(size, count, options.anchor_seed).to(dtype)
        self._hold("anchors", places, options.learn_anchors)
        start = torch.tensor(float(omega), dtype=dtype, device="cpu")
        self._hold("omega", start, options.learns_omega)
        self._last: _Evaluation | None = None

    def _hold(self, name: str, value: Tensor, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def matrix(self) -> Tensor:
        """Values Phi [S, M], with gradients in what is learned; they must not be written to."""
        sources = (self.sites, self.anchors, self.omega)
        key = None if torch.compiler.is_compiling() else _state(sources)
        if key is None:
            return evaluate(*sources)
        if self._last is None or self._last.key != key:
            with torch.inference_mode(False), torch.no_grad():
                held = tuple(source.detach() for source in sources)
                self._last = _Evaluation(held, key, evaluate(*held))
        values = self._last.values
        if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
            out: Tensor = _Known.apply(*sources, values)
            return out
        return values

    @torch.no_grad()
    def fit_white_(self, values: Tensor) -> None:
        """Turn white noise [..., M] into anchor values of the best fit to white noise on the sites.

        Functions that overlap add up where all anchor values are drawn alone: their sums are
        smooth, so that a mean in the input counts far more than He's rule takes it to. The least
        squares fit ``(Phi^T Phi)^-1 Phi^T n`` of noise n has covariance ``(Phi^T Phi)^-1``, and so
        has ``(Phi^T Phi)^-1/2`` times noise of M numbers. Functions that are sums of others have no
        part in it.
        """
        phi = self.matrix().detach()
        if values.is_meta or phi.is_meta:
            return
        phi = phi.cpu().double()
        squares, axes = torch.linalg.eigh(phi.T @ phi)
        kept = squares > _DEPENDENT * squares[-1]
        root = (axes[:, kept] * squares[kept].rsqrt()) @ axes[:, kept].T
        noise = values.cpu().double().reshape(*values.shape[:-1], -1, len(root))
        values.copy_((noise @ root).reshape(values.shape))

    def __getstate__(self) -> dict[str, Any]:
        """What copies are made of: not the values, which belong to these very tensors."""
        return {**self.__dict__, "_last": None}


def _state(tensors: tuple[Tensor, ...]) -> tuple[Any, ...] | None:
    """What changes whenever one of the tensors does; None for tensors that do not say."""
    try:
        return tuple((t.data_ptr(), t._version, t.dtype, t.device, t.shape) for t in tensors)
    except RuntimeError:  # inside of torch.func transforms, or made in inference mode
        return None


def hyperparameters(module: nn.Module) -> dict[str, str | None]:
    """Learned omegas and anchor places in a module: name to prior group, None without a prior."""
    found: dict[str, str | None] = {}
    for prefix, basis in module.named_modules():
        if isinstance(basis, Basis):
            for name, _ in basis.named_parameters(prefix):
                ruled = basis.options.control == "omega" and name.endswith("omega")
                found[name] = "omega" if ruled else None
    return found


@curvature.register_rule(Basis)
class BasisRule(curvature.Rule):
    """No weights; an omega with a prior has a curvature of its own, one exact number."""

    weight = None
    bias = None

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        ruled = self.module.options.control == "omega"
        self.others = {"omega": "diagonal" if ruled else "fixed", "anchors": "fixed"}

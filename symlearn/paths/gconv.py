"""Group convolution: shifts and a finite group of rotations and reflections (paper, App. A).

    y[c', g', x'] = sum_c sum_g sum_x W[c', c, g'^-1 g, g'^-1 (x - x')] f[c, g, x]

Its factors (paper, App. F.3 and Table 7) are group convolutions one after the other. The numbers of
parameters in Table 7 say what the spatial filter of the separable ones is: one per input channel,
not one per pair of channels.

| factor | modules | weights |
|---|---|---|
| full | conv | ``C' C |G| K`` |
| separable | spatial, mix | ``C K + C' C |G|`` |
| depthwise-separable | spatial, group, mix | ``C K + C |G| + C' C`` |
| pointwise | conv | ``C' C K`` |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from symlearn.geometry import Geometry, wrap_pad
from symlearn.groupconv import GroupConv2d, GroupFilter
from symlearn.groups.grid import named
from symlearn.groups.windows import turned_taps, window_problems
from symlearn.paths.base import Path, PathSpec, he_std, normal_

_ROUNDING = 32  # machine epsilons that turning, averaging and factoring a filter may change it by
FACTORS = ("full", "separable", "depthwise-separable", "pointwise")


def group_filters(geometry: Geometry, factor: str, inner_bias: bool) -> dict[str, GroupFilter]:
    """The group convolutions that a factorisation consists of, first one first."""
    if factor in ("full", "pointwise"):
        return {"conv": GroupFilter(geometry, pointwise=factor == "pointwise")}
    order = named(geometry.group or "").order
    channels = geometry.in_channels // (1 if geometry.lifts else order)
    depthwise = replace(geometry, out_channels=channels * order, groups=channels)
    mix = replace(
        geometry,
        in_channels=channels * order,
        in_size=geometry.out_size,
        kernel_size=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        padding_mode="zeros",
        circular=False,
        lifts=False,
    )
    spatial = GroupFilter(depthwise, pointwise=True, bias=inner_bias)
    if factor == "separable":
        return {"spatial": spatial, "mix": GroupFilter(mix)}
    turns = replace(mix, out_channels=channels * order, groups=channels)
    return {
        "spatial": spatial,
        "group": GroupFilter(turns, bias=inner_bias),
        "mix": GroupFilter(mix, pointwise=True),
    }


class GConvPath(Path):
    """Group convolutions one after the other; only the first sees a window of several sites."""

    reads_aligned = True
    strictness = 2

    def __init__(self, geometry: Geometry, factor: str, inner_bias: bool) -> None:
        super().__init__(geometry)
        self.inner_bias = inner_bias
        self._filters = group_filters(geometry, factor, inner_bias)
        self.convs = nn.ModuleDict({k: GroupConv2d(f) for k, f in self._filters.items()})
        self._pads = geometry.circular_pads() if geometry.circular else []

    def _convs(self) -> list[GroupConv2d]:
        return [conv for conv in self.convs.values() if isinstance(conv, GroupConv2d)]

    def _stds(self) -> list[float]:
        """Initial size of each factor: a product of He's size, no nonlinearity in between."""
        *inner, last = (f.fan_in for f in self._filters.values())
        return [fan_in**-0.5 for fan_in in inner] + [he_std(last)]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C |G|, *in], or [N, C, *in] where the layer lifts, to [N, C' |G|, *out]."""
        x = wrap_pad(x, self._pads)
        for conv in self._convs():
            x = conv(x)
        return x

    def factors(self) -> list[nn.Parameter]:
        """The filters, without inner biases."""
        return [conv.weight for conv in self._convs()]

    def reset_parameters(self, generator: torch.Generator) -> None:
        """He initialisation over the window, the group and the channels."""
        for conv, std in zip(self._convs(), self._stds(), strict=True):
            normal_(conv.weight, std, generator)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def start_at_zero(self, generator: torch.Generator) -> None:
        """The last factor zero, those before it random."""
        self.reset_parameters(generator)
        nn.init.zeros_(self.tested())

    def tested(self) -> Tensor:
        """The filters of the last factor."""
        return self._convs()[-1].weight

    def needs_direction(self) -> bool:
        """Where there are several factors: at zero all gradients would vanish."""
        return len(self.convs) > 1

    def propose(self, x: Tensor, g: Tensor) -> None:
        """Factors before the last near the best rank-one directions of the full gradient."""
        nn.init.zeros_(self.tested())
        if self.needs_direction():
            full = GroupConv2d(GroupFilter(self.geometry)).to(x)
            with torch.enable_grad():
                value = (full(wrap_pad(x.detach(), self._pads)) * g.detach()).sum()
            (wanted,) = torch.autograd.grad(value, full.weight)
            self._set_inner(wanted)

    def _set_inner(self, wanted: Tensor) -> Tensor:
        """Set all factors but the last to unit directions that filters are made of.

        Args:
            wanted: Full filters [C', C/B, |G| (1 where the layer lifts), *window].

        Returns:
            The last factor's filters, in its shape, for which the product is nearest to them.
        """
        geo, group = self.geometry, named(self.geometry.group or "")
        taps = turned_taps(group, geo.kernel_size).to(wanted.device)
        flat = wanted.flatten(3).expand(-1, -1, group.order, -1)
        # the spatial filter is turned with its input's element: W[c', c, h, u] = v w[c, h^-1 u]
        rest: Tensor = flat.take_along_dim(taps[None, None], 3)
        # [B, C'/B, C/B, |G|, K] to [C, C'/B, |G|, K]
        rest = rest.unflatten(0, (geo.groups, -1)).transpose(1, 2).flatten(0, 1)
        inner = self._convs()[:-1]
        with torch.no_grad():
            for conv in inner:
                direction = _leading(rest.flatten(1, -2))  # [C, K], then [C, |G|]
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
                conv.weight.copy_(direction.reshape(conv.weight.shape))
                rest = torch.einsum("c...k,ck->c...", rest, direction)
        last = rest.reshape(geo.groups, -1, *rest.shape[1:]).transpose(1, 2)
        return last.reshape(self.tested().shape)

    def seed(self, descent: Tensor, size: float) -> None:
        """The last factor along the descent direction, at a fraction of the initial size."""
        self.set_along(self.tested(), descent, size * self._stds()[-1])

    def filters(self) -> Tensor | None:
        """The dense filters [C' |G|, C |G| / B, *window]; None if inner biases are not zero."""
        convs = self._convs()
        if any(conv.bias is not None and bool(conv.bias.any()) for conv in convs):
            return None
        product = convs[0].dense().detach()
        if len(convs) == 1:
            return product
        whole = _ungrouped(product.flatten(2), convs[0].groups)
        for conv in convs[1:]:
            mixing = _ungrouped(conv.dense().detach().flatten(2), conv.groups).squeeze(2)
            whole = torch.einsum("oc,cik->oik", mixing, whole)
        geo = self.geometry
        blocks = whole.unflatten(1, (geo.groups, -1)).unflatten(0, (geo.groups, -1))
        own: Tensor = blocks.diagonal(dim1=0, dim2=2).movedim(-1, 0)
        return own.reshape(geo.out_channels, -1, *geo.kernel_size)

    def adopt(self, conv: nn.Module) -> bool:
        """Take over filters that the group turns into each other, if the factors can hold them."""
        dense = conv.get_parameter("weight").detach()
        if dense.is_meta:  # nothing to lose
            return True
        full = GroupConv2d(GroupFilter(self.geometry)).to(dense)
        wanted = full.project(dense)
        convs = self._convs()
        last = self._set_inner(wanted) if len(convs) > 1 else convs[0].project(dense)
        with torch.no_grad():
            self.tested().copy_(last)
        mine = self.filters()
        error = torch.inf if mine is None else float((mine - dense).abs().max())
        return error <= _ROUNDING * torch.finfo(dense.dtype).eps * float(dense.abs().max())


def _leading(v: Tensor) -> Tensor:
    """Unit right singular vectors [C, D] of matrices [C, M, D] with the largest value."""
    v = v / v.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    vectors: Tensor = torch.linalg.eigh(v.mT @ v).eigenvectors
    return vectors[..., -1]


def _ungrouped(filters: Tensor, groups: int) -> Tensor:
    """Filters [C', C/B, K] of a convolution with B channel groups as [C', C, K] without."""
    eye = torch.eye(groups, dtype=filters.dtype, device=filters.device)
    blocks: Tensor = torch.einsum("boik,bc->bocik", filters.unflatten(0, (groups, -1)), eye)
    return blocks.flatten(2, 3).flatten(0, 1)


@dataclass(frozen=True)
class GConv(PathSpec):
    """Spec of the group-convolution path ``"gconv"``, for networks made by `symlearn.lift`.

    Args:
        group: Name of the group, or None for the one the network was lifted to.
        factor: One of `FACTORS`.
        inner_bias: Whether the factors before the last add biases of their own, as the networks of
            the paper's Table 7 do. They say nothing that the layer's bias does not.

    Raises:
        ValueError: For an unknown group or factor (the names are listed), or inner biases of a
            filter in one piece.
    """

    name: ClassVar[str] = "gconv"
    group: str | None = None
    factor: str = "full"
    inner_bias: bool = False

    def __post_init__(self) -> None:
        if self.group is not None:
            named(self.group)
        if self.factor not in FACTORS:
            raise ValueError(f"unknown factor {self.factor!r}; choose one of {list(FACTORS)}")
        if self.inner_bias and self.factor in ("full", "pointwise"):
            raise ValueError(f"a {self.factor!r} filter is one piece, it has no inner bias")

    @classmethod
    def from_text(cls, text: str) -> GConv:
        """The name of the group."""
        return cls(group=text)

    def unsuited(self, geometry: Geometry) -> list[str]:
        """Reasons of the layer's group, window and maps."""
        if geometry.group is None:
            return ["it is not over a group; call symlearn.lift(model, group) before wrap"]
        if self.group is not None and self.group != geometry.group:
            return [f"it is over the group {geometry.group!r}, not {self.group!r}"]
        group = named(geometry.group)
        problems = window_problems(group, geometry)
        if not problems:
            try:
                group.check_size(geometry.in_size)
            except ValueError as error:
                problems = [str(error)]
        return problems

    def build(self, geometry: Geometry) -> GConvPath:
        """Make the path for one layer."""
        self.check(geometry)
        return GConvPath(geometry, self.factor, self.inner_bias)

    def n_params(self, geometry: Geometry) -> int:
        """See the module's table."""
        return sum(f.n_params for f in self._filters(geometry))

    def factor_elements(self, geometry: Geometry) -> int:
        """One pair of factors per module and channel group."""
        return sum(f.factor_elements for f in self._filters(geometry))

    def _filters(self, geometry: Geometry) -> list[GroupFilter]:
        self.check(geometry)
        return list(group_filters(geometry, self.factor, self.inner_bias).values())

"""The part of a linear layer that commutes with a finite group, and the rest.

    P T = 1/|G| sum_g rho_2(g)^{-1} T rho_1(g)

is the orthogonal projection of an operator T on those that commute with G (both representations
permute entries). T is never formed: its columns are computed orbit by orbit. For an entry e of the
input the columns ``T rho_1(g) e`` of its orbit, each moved back by ``rho_2(g)^{-1}``, have P T e as
their mean, and their spread about it is the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from symlearn.audit import images
from symlearn.groups import GridGroup, act_on_features, named
from symlearn.progress import Progress
from symlearn.relaxed import RelaxedLayer

_BATCH = 256


class ActsOnMaps(Protocol):
    """A finite group that permutes the sites of maps, such as `GridGroup` and `Shifts`."""

    @property
    def name(self) -> str:
        """Name of the group."""

    @property
    def order(self) -> int:
        """Number of elements."""

    @property
    def inverse(self) -> Tensor:
        """Index of the inverse of each element, [|G|]."""

    def act(self, x: Tensor, g: int) -> Tensor:
        """The element g on maps [..., H, W]."""


@dataclass(frozen=True)
class Shifts:
    """Circular translations, as a group of a rows times b columns.

    On a map of size (H, W) the element (i, j) moves by ``(i H/a, j W/b)`` pixels, so that maps
    before and after a stride are moved together.

    Args:
        size: (a, b).
    """

    size: tuple[int, int]

    @property
    def name(self) -> str:
        """Name of the group."""
        return f"shifts {self.size[0]}x{self.size[1]}"

    @property
    def order(self) -> int:
        """Number of elements."""
        return self.size[0] * self.size[1]

    @property
    def inverse(self) -> Tensor:
        """Index of the inverse of each element, [|G|]."""
        a, b = self.size
        rows, columns = torch.arange(a).unsqueeze(1), torch.arange(b)
        return ((-rows % a) * b + (-columns % b)).flatten()

    def act(self, x: Tensor, g: int) -> Tensor:
        """Move maps [..., H, W] by the element g.

        Raises:
            ValueError: If (a, b) does not divide (H, W).
        """
        a, b = self.size
        height, width = x.shape[-2:]
        if height % a or width % b:
            raise ValueError(f"{self.name} do not act on maps of size {[height, width]}")
        return x.roll((g // b * (height // a), g % b * (width // b)), (-2, -1))


@dataclass(frozen=True)
class OperatorSplit:
    """Squared Frobenius norms of a linear operator and of its two parts.

    Attributes:
        group: Name of the group.
        commuting: Squared norm of the part that commutes with the group.
        rest: Squared norm of the rest; the two add up to the operator's.
    """

    group: str
    commuting: float
    rest: float

    @property
    def norm_square(self) -> float:
        """Squared norm of the operator."""
        return self.commuting + self.rest

    @property
    def share(self) -> float:
        """Share of the squared norm that commutes; nan for the zero operator."""
        return self.commuting / self.norm_square if self.norm_square else float("nan")


class Averaged(nn.Module):
    """A module averaged over a group: ``1/|G| sum_g rho_2(g)^{-1} f(rho_1(g) x)``, equivariant.

    Of a linear module this is the commuting part.

    Args:
        module: A module that maps maps to maps or vectors.
        group: The group, or the name of a `GridGroup`.
        lifted: Whether input and output are features over the group.
    """

    def __init__(
        self,
        module: nn.Module,
        group: str | ActsOnMaps,
        lifted: tuple[bool, bool] = (False, False),
    ) -> None:
        super().__init__()
        self.module, self.group, self.lifted = module, _group(group), lifted

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the module's output."""
        back = self.group.inverse.tolist()
        terms = [
            _act(self.module(_act(x, self.group, g, self.lifted[0])), self.group, b, self.lifted[1])
            for g, b in enumerate(back)
        ]
        return torch.stack(terms).mean(0)


def _group(group: str | ActsOnMaps) -> ActsOnMaps:
    return named(group) if isinstance(group, str) else group


def _act(v: Tensor, group: ActsOnMaps, g: int, lifted: bool) -> Tensor:
    """A group element on maps [N, C, H, W]; on vectors it does nothing."""
    if v.ndim != 4:
        return v
    if not lifted:
        return group.act(v, g)
    if not isinstance(group, GridGroup):
        raise ValueError(f"features are over a GridGroup, got {group.name}")
    return act_on_features(v, group, g, True)


def split_operator(
    module: nn.Module,
    in_shape: Sequence[int],
    group: str | ActsOnMaps = "translations",
    *,
    lifted: tuple[bool, bool] = (False, False),
    batch: int = _BATCH,
    progress: bool | None = False,
) -> OperatorSplit:
    """Split a linear (or affine) module's operator into what commutes with a group and the rest.

    Exact, at the cost of one forward pass per number of the input, in batches.

    Args:
        module: The module; a constant it adds is left out.
        in_shape: Shape (C, H, W) of one input.
        group: "translations" (by all whole pixels that input and output share), the name of a
            `GridGroup`, or a finite group object.
        lifted: Whether inputs and outputs are features over the group.
        batch: Inputs per forward pass.
        progress: Whether to show a progress bar; None on terminals only.

    Raises:
        ValueError: If the module is not affine, does not take such inputs, or the group does not
            act on its maps.

    Example:
        >>> import torch
        >>> from symlearn.audit.projection import split_operator
        >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
        >>> f"{split_operator(conv, (1, 4, 4)).share:.3f}"
        '1.000'
    """
    operator = _Operator(module, in_shape)
    if group == "translations":
        group = operator.shared_shifts()
    group = _group(group)
    orbits, distinct = _orbits(operator.in_shape, group, lifted[0])
    commuting = rest = 0.0
    together = max(1, batch // group.order)
    parts = list(zip(orbits.split(together), distinct.double().split(together), strict=True))
    with torch.no_grad(), images.frozen(module), Progress(progress, "orbits", len(parts)) as bar:
        for entries, sizes in parts:
            mean, spread = _spread_over(operator, entries, group, lifted[1], batch)
            commuting += float(sizes @ mean.flatten(1).square().sum(1).cpu())
            rest += float(sizes @ spread.cpu()) / group.order
            bar.advance()
    return OperatorSplit(group.name, commuting, rest)


def split_paths(
    layer: RelaxedLayer, group: str | ActsOnMaps = "translations", *, batch: int = _BATCH
) -> dict[str, OperatorSplit]:
    """Split each path of a relaxed layer, and their sum under the name "sum".

    A layer that chooses a sampling grid for each image is not linear; its paths are, on that grid.

    Args:
        layer: The layer.
        group: As in `split_operator`.
        batch: Inputs per forward pass.

    Raises:
        ValueError: If the group does not act on the layer's maps.
    """
    shape = (layer.geometry.in_channels, *layer.geometry.in_size)
    modules: dict[str, nn.Module] = {
        name: path for name, path in layer.named_paths().items() if path.enabled
    }
    if modules:
        modules["sum"] = _Sum(modules.values())
    return {name: split_operator(m, shape, group, batch=batch) for name, m in modules.items()}


class _Sum(nn.Module):
    """The sum of modules."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([term(x) for term in self.terms]).sum(0)


def _spread_over(
    operator: _Operator, orbits: Tensor, group: ActsOnMaps, lifted: bool, batch: int
) -> tuple[Tensor, Tensor]:
    """Mean [R, D] of the columns of R orbits [R, |G|], and their squared distances from it [R].

    Pieces of a large group are pooled as they come (Chan et al. 1979).
    """
    mean = spread = torch.zeros(len(orbits), 1, dtype=torch.float64, device=orbits.device)
    spread, seen = spread.sum(1), 0
    for elements in torch.arange(group.order).split(batch):
        columns = operator.columns(orbits[:, elements].flatten())
        columns = columns.unflatten(0, (len(orbits), len(elements)))
        back = [
            _act(columns[:, i], group, int(group.inverse[g]), lifted)
            for i, g in enumerate(elements)
        ]
        rows = torch.stack(back, 1).flatten(2).double().cpu()  # [R, |elements|, D]
        piece = rows.mean(1)
        inside = (rows - piece.unsqueeze(1)).square().sum((1, 2))
        n = seen + len(elements)
        between = (piece - mean).square().sum(1) * (seen * len(elements) / n)
        mean = mean + (piece - mean) * (len(elements) / n)
        spread, seen = spread + inside + between, n
    return mean, spread


def _orbits(shape: Sequence[int], group: ActsOnMaps, lifted: bool) -> tuple[Tensor, Tensor]:
    """Orbits of the entries of an input: g e for all g, [R, |G|], and how many differ, [R]."""
    channels = group.order if lifted else 1
    if shape[0] % channels:
        raise ValueError(
            f"{shape[0]} channels are no features over {group.name}, which has order {group.order}"
        )
    block = channels * shape[1] * shape[2]
    index = torch.arange(block).reshape(1, channels, *shape[1:])
    # act(index, g)[p] = index[g^-1 p], so the entry e lies at g e
    moved = torch.stack([_act(index, group, g, lifted).flatten() for g in range(group.order)])
    goes_to = moved.argsort(1)
    first = goes_to.amin(0) == torch.arange(block)
    orbits = goes_to[:, first].T
    ordered = orbits.sort(1).values
    distinct = 1 + (ordered.diff(dim=1) != 0).sum(1)
    starts = block * torch.arange(shape[0] // channels)
    return (starts.reshape(-1, 1, 1) + orbits).flatten(0, 1), distinct.repeat(len(starts))


class _Operator:
    """The linear part of an affine module, column by column."""

    def __init__(self, module: nn.Module, in_shape: Sequence[int]) -> None:
        self.module, self.in_shape = module, tuple(in_shape)
        if len(self.in_shape) != 3 or min(self.in_shape) < 1:
            raise ValueError(f"in_shape is the shape (C, H, W) of one input, got {self.in_shape}")
        anchor = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
        self.options = {"dtype": anchor.dtype, "device": anchor.device}
        with torch.no_grad(), images.frozen(module):
            zero = torch.zeros(1, *self.in_shape, **self.options)  # type: ignore[call-overload]
            self.constant = self._run(zero)
            self._check_affine()

    def _run(self, x: Tensor) -> Tensor:
        try:
            return images.outputs(self.module, x)
        except RuntimeError as error:
            raise ValueError(
                f"{type(self.module).__name__} does not take inputs of shape "
                f"[N, {', '.join(map(str, self.in_shape))}]: {error}"
            ) from error

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x) - self.constant

    def _check_affine(self) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(2, *self.in_shape, generator=generator, dtype=torch.float64)
        pair = drawn.to(**self.options)  # type: ignore[call-overload]
        a, b = self(pair).unbind(0)
        c = self(pair[:1] - 2 * pair[1:])[0]
        size = (a.abs().max() + 2 * b.abs().max()).clamp(min=1e-30)
        if not bool((c - (a - 2 * b)).abs().max() <= 1e-3 * size):
            raise ValueError(
                f"{type(self.module).__name__} is not linear on inputs of shape "
                f"{list(self.in_shape)}; split its linear layers one by one"
            )

    def columns(self, entries: Tensor) -> Tensor:
        """Columns of the operator, one per entry of the flattened input, [n, *out]."""
        x = torch.zeros(len(entries), math.prod(self.in_shape), **self.options)  # type: ignore[call-overload]
        x[torch.arange(len(entries)), entries] = 1
        return self(x.reshape(-1, *self.in_shape))

    def shared_shifts(self) -> Shifts:
        """All translations by whole pixels of both input and output."""
        sizes = [self.in_shape[1:], tuple(self.constant.shape[2:]) or self.in_shape[1:]]
        a, b = (math.gcd(*pair) for pair in zip(*sizes, strict=True))
        return Shifts((a, b))

"""Equivariance errors of a whole network under finite transformations.

Less local than the Lie derivative: they depend on which transformations are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.audit import images, resample
from symlearn.audit.layouts import output_layout
from symlearn.audit.lie import acting_on, standard_error
from symlearn.audit.transforms import Transformation
from symlearn.groups import GridGroup, act_on_features, named


@dataclass(frozen=True)
class Element:
    """One group element: how it acts on images and on the network's outputs.

    Attributes:
        name: Name.
        act: On images [N, C, H, W].
        on_output: On outputs [N, ...].
        undo: Its inverse on outputs [N, ...].
    """

    name: str
    act: Callable[[Tensor], Tensor]
    on_output: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


def element_at(transform: Transformation, t: float, output: str = "auto") -> Element:
    """The element of a one-parameter group at parameter t.

    Args:
        transform: The group.
        t: The parameter.
        output: How it acts on outputs: "auto", "image" or "vector".
    """

    def moved(y: Tensor, by: float) -> Tensor:
        return acting_on(y, transform, output).act(y, lambda v: transform.act(v, by))

    return Element(
        f"{transform.name}({t:g})",
        lambda x: transform.act(x, t),
        lambda y: moved(y, t),
        lambda y: moved(y, -t),
    )


def elements_of(
    group: str | GridGroup, output: str = "auto", lifted: bool = False
) -> tuple[Element, ...]:
    """All elements of a finite group of rotations and reflections.

    Args:
        group: The group or its name.
        output: How it acts on outputs: "auto", "image" or "vector".
        lifted: Whether outputs that are maps are features over the group.

    Raises:
        ValueError: For an unknown group.
    """
    group = named(group)

    def moved(y: Tensor, g: int) -> Tensor:
        if not output_layout(y, output).grids:
            return y
        return act_on_features(y, group, g, lifted)

    def make(g: int) -> Element:
        back = int(group.inverse[g])
        return Element(
            f"{group.name}[{g}]",
            lambda x: group.act(x, g),
            lambda y: moved(y, g),
            lambda y: moved(y, back),
        )

    return tuple(make(g) for g in range(group.order))


@dataclass(frozen=True)
class Measured:
    """A mean over images, with its standard error.

    Attributes:
        mean: The mean.
        error: Its standard error over images, nan for one image.
        n_images: Number of images.
    """

    mean: float
    error: float
    n_images: int

    @classmethod
    def of(cls, each: Tensor, what: str) -> Measured:
        """The mean of one number per image, [N].

        Raises:
            NotFiniteError: If they are not finite.
        """
        each = images.check_finite(each.double(), what)
        return cls(float(each.mean()), float(standard_error(each)), len(each))


def _over(
    model: nn.Module,
    x: Tensor,
    elements: Sequence[Element],
    link: str,
    batch: int,
    compare: Callable[[Tensor, Tensor, Element], Tensor],
) -> Tensor:
    """Mean over the elements of one number per image, [N]."""
    if not elements:
        raise ValueError("give at least one group element")
    means = []
    with torch.no_grad(), images.frozen(model):
        for part in x.split(batch):
            plain = images.outputs(model, part, link)
            total = torch.zeros(len(part), dtype=torch.float64, device=x.device)
            for element in elements:
                moved = images.outputs(model, element.act(part), link)
                total += compare(plain, moved, element).double()
            means.append(total / len(elements))
    return torch.cat(means)


def group_sample_error(
    model: nn.Module,
    x: Tensor,
    elements: Sequence[Element],
    *,
    link: str = "identity",
    batch: int = 32,
) -> Measured:
    """``1/k sum_k ||rho_2(g_k)^{-1} f(rho_1(g_k) x) - f(x)||`` (Gruver et al. 2023, A.3.3.3).

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        elements: The elements g_k; `nearby` draws some.
        link: "identity" or "softmax".
        batch: Images per batch.

    Raises:
        ValueError: Without elements, or if an output is not finite.
    """

    def distance(plain: Tensor, moved: Tensor, element: Element) -> Tensor:
        error: Tensor = (element.undo(moved) - plain).flatten(1).norm(dim=1)
        return error

    return Measured.of(_over(model, x, elements, link, batch, distance), "the group sample error")


def relative_error(
    model: nn.Module,
    x: Tensor,
    elements: Sequence[Element],
    *,
    link: str = "identity",
    batch: int = 32,
) -> Measured:
    """Mean EquivErr: ``||a - b|| / (||a|| + ||b||)``, a = rho_2(g) f(x), b = f(rho_1(g) x).

    Residual Pathway Priors, Eq. 3.3. It lies in [0, 1]; two zero outputs agree (0).

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        elements: The elements g.
        link: "identity" or "softmax".
        batch: Images per batch.

    Raises:
        ValueError: Without elements, or if an output is not finite.
    """

    def relative(plain: Tensor, moved: Tensor, element: Element) -> Tensor:
        a, b = element.on_output(plain).flatten(1), moved.flatten(1)
        whole = a.norm(dim=1) + b.norm(dim=1)
        error: Tensor = torch.where(whole == 0, 0.0, (a - b).norm(dim=1) / whole)
        return error

    return Measured.of(_over(model, x, elements, link, batch, relative), "the relative error")


def nearby(
    transforms: Sequence[Transformation], spread: float, n: int, seed: int = 0, output: str = "auto"
) -> tuple[Element, ...]:
    """Elements near the identity: parameters uniform in [-spread, spread], in turn of each group.

    Args:
        transforms: The groups.
        spread: Largest parameter, in the unit of the group (5 pixels are 5 / W for translations).
        n: Number of elements of each group.
        seed: Of the draw.
        output: How they act on outputs: "auto", "image" or "vector".
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = (2 * torch.rand(n, len(transforms), generator=generator) - 1) * spread
    return tuple(
        element_at(transform, t, output)
        for row in drawn.tolist()
        for transform, t in zip(transforms, row, strict=True)
    )


def discrete_consistency(
    model: nn.Module,
    x: Tensor,
    *,
    pixels: int = 10,
    padding: str = "reflection",
    batch: int = 32,
) -> Measured:
    """Share of images whose top class changes under shifts by whole pixels (A.3.3.3).

    This is one minus the consistency of Zhang (2019); each image is shifted in all four directions.

    Args:
        model: The network, with outputs [N, classes]; it is run in eval mode.
        x: Images [N, C, H, W].
        pixels: Size of the shift.
        padding: "reflection", "circular" or "zeros".
        batch: Images per batch.

    Raises:
        ValueError: If the shift is not smaller than the image, the padding is unknown, or the
            outputs are not [N, classes].
    """
    resample.check("bilinear", padding)
    if not 0 < pixels < min(x.shape[-2:]):
        raise ValueError(
            f"a shift by {pixels} pixels does not suit images of size {list(x.shape[-2:])}; take "
            "a positive one that is smaller"
        )
    shares = []
    with torch.no_grad(), images.frozen(model):
        for part in x.split(batch):
            plain = images.outputs(model, part)
            if plain.ndim != 2:
                raise ValueError(f"consistency needs outputs [N, classes], got {list(plain.shape)}")
            changed = torch.zeros(len(part), dtype=torch.float64, device=x.device)
            for rows, columns in ((0, pixels), (pixels, 0), (0, -pixels), (-pixels, 0)):
                moved = resample.shift(part, rows, columns, "bilinear", padding)
                changed += images.outputs(model, moved).argmax(1) != plain.argmax(1)
            shares.append(changed / 4)
    return Measured.of(torch.cat(shares), "the consistency")

"""Shifting images around a circle, and what must move with them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from symlearn.pose import Pose
from symlearn.relaxed import RelaxedLayer
from symlearn.subsample import CircularPool, PhaseReference

Shift = tuple[int, ...]


def all_shifts(size: tuple[int, ...]) -> Iterator[Shift]:
    """Every circular shift of a map."""
    return itertools.product(*(range(s) for s in size))


def shifted(x: Tensor, by: Shift) -> Tensor:
    """Images shifted circularly along all spatial axes."""
    return x.roll(by, tuple(range(2, 2 + len(by))))


def stress_images(size: tuple[int, ...], channels: int = 1) -> dict[str, Tensor]:
    """Images on which rules for choosing a grid have failed, each [1, C, *size] in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, channels, *size)

    def noise(*extents: int) -> Tensor:
        return torch.rand(1, channels, *extents, generator=generator, dtype=torch.float64)

    def placed(patch: Tensor) -> Tensor:
        out = torch.zeros(shape, dtype=torch.float64)
        out[(slice(None), slice(None), *(slice(1, 1 + n) for n in patch.shape[2:]))] = patch
        return out

    small = tuple(max(1, s // 4) for s in size)
    thing, block = placed(noise(*small)), placed(torch.ones(1, channels, *small).double())
    half = tuple(s // 2 for s in size)
    first = (half[0],) + (0,) * (len(size) - 1)
    wave = torch.arange(size[0], dtype=torch.float64).mul(6 * torch.pi / size[0]).cos()
    images = {
        "noise": noise(*size),
        "constant": torch.full(shape, 0.1, dtype=torch.float64),
        "zero": torch.zeros(shape, dtype=torch.float64),
        "binarised": (noise(*size) > 0.5).double(),
        "pixel": placed(torch.ones(1, channels, *[1] * len(size)).double()),
        "block": block,
        "thing": thing,
        "thing twice": thing + shifted(thing, first),
        "thing twice on all axes": thing + shifted(thing, half),
        "thing and its negative": thing - shifted(thing, first),
        "thing and its mirror image": thing + shifted(thing.flip(-1), first),
        "wave": wave.reshape(1, 1, -1, *[1] * (len(size) - 1)).expand(shape).clone(),
        "columns": noise(*size[:-1], 1).expand(shape).clone(),
    }
    if channels > 1:
        images["thing and its recoloured twin"] = thing + shifted(thing.flip(1), first)
    for period in (2, 4, 8):
        if all(s % period == 0 and s > period for s in size):
            repeats = [1, 1, *(s // period for s in size)]
            images[f"period {period}"] = noise(*[period] * len(size)).repeat(repeats)
    return images


def assert_invariant(net: nn.Module, x: Tensor, tolerance: float = 1e-10) -> None:
    """Check that the outputs are the same for all circular shifts of the images.

    The tolerance is relative to each image's largest output.
    """
    with torch.no_grad():
        expected = net(x)
        scale = expected.abs().flatten(1).amax(1)
        for by in all_shifts(tuple(x.shape[2:])):
            error = (net(shifted(x, by)) - expected).abs().flatten(1).amax(1)
            fine = error <= tolerance * scale
            assert bool(fine.all()), f"shift {by} changes the outputs of images {(~fine).nonzero()}"


def pose_of(reference: PhaseReference, x: Tensor) -> Pose:
    """Poses that a reference decides for images."""
    reference.decide(reference, (x,), {})
    found = reference.pose
    reference.forget(reference, (), None)
    return found


def maps_of(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all circular layers and pools, by name."""
    maps: dict[str, Tensor] = {}

    def note(name: str, out: Tensor) -> None:
        maps[name] = out

    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: note(name, out))
        for name, module in net.named_modules()
        if isinstance(module, (RelaxedLayer, CircularPool))
    ]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return maps


def assert_maps_move(net: nn.Module, x: Tensor, tolerance: float = 1e-10) -> None:
    """Check that every map of shifted images is a shifted map, by the amount the grids imply.

    A map after a total stride m keeps every m-th site, from ``q mod m`` on, q the image's shift:
    it is shifted by the difference of ``q // m``. Without a phase reference q is unknown; the shift
    is then ``t / m`` rounded down or up on each axis.
    """
    size = tuple(x.shape[2:])
    references = [m for m in net.modules() if isinstance(m, PhaseReference)]
    before = maps_of(net, x)
    for by in all_shifts(size):
        y = shifted(x, by)
        for name, found in maps_of(net, y).items():
            steps = [s // m for s, m in zip(size, found.shape[2:], strict=True)]
            if references:
                m, (there, here) = torch.tensor(steps), (pose_of(references[0], v) for v in (y, x))
                moves = [there.shift // m - here.shift // m]
            else:
                floors = [(t // m, t // m + 1) for t, m in zip(by, steps, strict=True)]
                moves = [torch.tensor(o).expand(len(x), -1) for o in itertools.product(*floors)]
            errors = torch.stack([_difference(before[name], found, move) for move in moves])
            limit = tolerance * before[name].abs().flatten(1).amax(1)
            fine = errors.amin(0) <= limit
            assert bool(fine.all()), f"{name} of images {(~fine).nonzero()} under shift {by}"


def _difference(before: Tensor, after: Tensor, moves: Tensor) -> Tensor:
    """Largest difference of each sample's map from the map before, moved, [N]."""
    pairs = zip(before.split(1), after, moves.tolist(), strict=True)
    return torch.stack([(shifted(a, tuple(m))[0] - b).abs().max() for a, b, m in pairs])

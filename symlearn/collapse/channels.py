"""Removing output channels that have vanished, and with them the inputs that they feed.

A channel has vanished if its weights are zero, or by the caller's judgement (no effective
parameters). It is then taken for a constant: its bias, or its mean over the data. The constant is
followed through the network (`symlearn.collapse.structure`); where it arrives at the next layer as
zero, or that layer can fold it into its bias, the channel is cut out on both sides. The cut network
is compared with the uncut one whose channels are held at their constants.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import curvature
from symlearn.collapse.structure import Space, producers, trace
from symlearn.collapse.surgery import cut_channels, cut_inputs, cut_outputs, zero_channels
from symlearn.collapse.verify import difference


@dataclass(frozen=True)
class Pruning:
    """What was cut.

    Attributes:
        removed: Layer -> number of output channels before and after.
        kept: Layer -> why channels that have vanished were kept.
    """

    removed: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def prune_channels(
    net: nn.Module, vanished: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> Pruning:
    """Cut channels that have vanished out of a network, in place.

    Args:
        net: A collapsed network.
        vanished: Layer name -> which of its output channels have vanished, bool [C'].
        inputs: Batches of inputs, which decide constants and on which the cut is checked.

    Raises:
        ValueError: If there are no inputs, or the network cannot be traced.
        CollapseError: If the cut changes outputs by more than rounding explains.
    """
    if not inputs:
        raise ValueError("channels are pruned by what they are on data: give data")
    constants = _constants(net, vanished, inputs)
    spaces = trace(net, constants)
    pruning = Pruning()
    held: dict[str, Tensor] = {}
    plan: list[tuple[Space, Tensor]] = []
    for space in spaces:
        gone, reason = _removable(space, constants)
        names = [name for name in space.producers if bool(constants[name].isfinite().any())]
        if reason:
            pruning.kept.update(dict.fromkeys(names, reason))
        if bool(gone.any()):
            plan.append((space, gone))
            held.update({n: torch.where(gone, constants[n], torch.nan) for n in space.producers})
            size = len(gone), len(gone) - int(gone.sum())
            pruning.removed.update(dict.fromkeys(space.producers, size))
    masked = _with_constants(net, held)
    for space, gone in plan:
        _cut(net, space, gone)
    difference(masked, net, inputs).check("the network without vanished channels")
    return pruning


def _constants(
    net: nn.Module, vanished: Mapping[str, Tensor], inputs: Iterable[Tensor]
) -> dict[str, Tensor]:
    """For each producer the constants that its channels are taken for, [C'], NaN if none."""
    means = _means(net, inputs)
    constants = {}
    for name, module in producers(net).items():
        zero, values = zero_channels(module)
        gone = torch.zeros_like(zero)
        for layer, mask in vanished.items():
            if name == layer or name.startswith(f"{layer}."):
                gone |= mask.to(gone)
        known = torch.where(zero, values, means[name].to(values)) if name in means else values
        constants[name] = torch.where(zero | gone, known, torch.nan).double().cpu()
    return constants


def _means(net: nn.Module, inputs: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean output of each producer per channel, over samples and sites."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def note(name: str, module: nn.Module, args: Any, out: Tensor) -> None:
        rows = out.double().movedim(-1 if isinstance(module, nn.Linear) else 1, 0).flatten(1)
        sums[name] = sums.get(name, 0.0) + rows.sum(1)
        counts[name] = counts.get(name, 0) + rows.shape[1]

    handles = [m.register_forward_hook(partial(note, n)) for n, m in producers(net).items()]
    try:
        with curvature.evaluating(net):
            for x in inputs:
                net(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def _removable(space: Space, constants: Mapping[str, Tensor]) -> tuple[Tensor, str]:
    """Which channels of a space can go, bool [C], and why vanished ones have to stay ("" if none).

    At least one channel stays.
    """
    candidates = torch.stack([constants[name].isfinite() for name in space.producers]).any(0)
    gone = torch.stack([constants[name].isfinite() for name in space.producers]).all(0)
    reason = "" if bool(gone.equal(candidates)) else _joint(space)
    if space.locked:
        gone, reason = torch.zeros_like(gone), space.locked
    for reader in space.readers:
        able = reader.absorbs()
        if bool((gone & ~able).any()):
            reason = f"{reader.name} cannot absorb a constant that is not zero"
        gone = gone & able
    if bool(gone.all()):
        gone[0] = False
    return gone, reason if bool(candidates.any()) else ""


def _joint(space: Space) -> str:
    return f"they are added to channels of {', '.join(space.producers)} that are in use"


def _with_constants(net: nn.Module, held: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network in which some channels of some producers are constants."""
    masked = copy.deepcopy(net)

    def hold(constants: Tensor, module: nn.Module, args: Any, out: Tensor) -> Tensor:
        values = constants.to(out).reshape(-1, *[1] * (out.ndim - 2))
        return torch.where(values.isnan(), out, values)

    for name, constants in held.items():
        masked.get_submodule(name).register_forward_hook(partial(hold, constants))
    return masked


def _cut(net: nn.Module, space: Space, gone: Tensor) -> None:
    """Cut channels out of all modules that hold them."""
    for name in space.producers:
        cut_outputs(net.get_submodule(name), ~gone)
    for name in space.norms:
        cut_channels(net.get_submodule(name), ~gone)
    for reader in space.readers:
        cut_inputs(reader.module, ~gone, reader.values)

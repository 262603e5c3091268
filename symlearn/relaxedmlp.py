"""Multilayer perceptrons that may break a matrix group: residual pathways, weighed by evidence.

Every layer is a relaxed layer of equivariant paths (``emlp``) and a free one (``fc``), whose matrix
has the prior ``N(0, s_a^2 Q Q^T + s_b^2 1)`` (Finzi's thesis, Eq. 3.1) with learned variances.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from curvature.checking import check_count, seeded
from symlearn.emlp import EMLPNonlinearity, gated, uniform
from symlearn.geometry import Geometry
from symlearn.groups import Group, Rep, V, equivariant_basis
from symlearn.paths import FC, Emlp, PathSpec
from symlearn.relaxed import RelaxedLayer, relaxed_layers
from symlearn.report import StructureReport, rule

__all__ = ["RelaxedBlock", "relaxed_mlp", "supported_groups"]

PATHS = ("emlp", "fc")
STARTS = ("strict", "fresh")
CONTRACTIONS = ("learned", "fixed")
_HELD = 1e-6  # largest norm of what a basis leaves of another that it is to hold


class RelaxedBlock(nn.Module):
    """A relaxed layer on vectors with a one appended, and what follows it.

    The one is a scalar: weights from it are the biases, equivariant in the one path and free in the
    other.

    Args:
        layer: Relaxed layer of `Geometry.of_vectors`.
        after: Nonlinearity.
    """

    def __init__(self, layer: RelaxedLayer, after: nn.Module) -> None:
        super().__init__()
        self.layer, self.after = layer, after

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [N, n] to vectors [N, n']."""
        out: Tensor = self.after(self._linear(x, 1.0))
        return out

    def with_tangents(self, x: Tensor, tangents: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The block at x, and its derivative along each tangent; all go through the layer.

        Args:
            x: Vectors [N, n].
            tangents: K vectors [N, n] each.

        Returns:
            Vectors [N, n'], and K of this shape.
        """
        y, moved = self._linear(x, 1.0), [self._linear(t, 0.0) for t in tangents]
        at = y.repeat(len(moved), 1)
        pushed: tuple[Tensor, ...] = torch.func.jvp(self.after, (at,), (torch.cat(moved),))
        return pushed[0][: len(x)], list(pushed[1].split(len(x)))

    def _linear(self, x: Tensor, one: float) -> Tensor:
        x = torch.cat([x, torch.full_like(x[:, :1], one)], dim=1)
        out: Tensor = self.layer(x.unsqueeze(-1)).squeeze(-1)
        return out


def relaxed_mlp(
    rep_in: Rep,
    rep_out: Rep,
    group: Group,
    *,
    subgroups: Sequence[Group] = (),
    width: int | Rep = 48,
    depth: int = 2,
    paths: Sequence[str] = PATHS,
    start: str = "strict",
    contractions: str = "learned",
    seed: int = 0,
) -> nn.Sequential:
    """A network whose layers are sums of equivariant and free matrices, for `symlearn.fit`.

    Gates and contractions commute with the group, so that the network is equivariant if the free
    paths are off: the verdict of each layer says so.

    Args:
        rep_in: Representation of the input; bound to the group if it is not yet.
        rep_out: Representation of the output.
        group: The largest group that is offered.
        subgroups: Smaller groups offered beside it, in the same base representation; each has a
            path with its name. Whether they are subgroups is not checked.
        width: Channels of a hidden layer, or its representation.
        depth: Number of hidden layers; 0 for a linear map.
        paths: "emlp" for the equivariant paths, "fc" for the free one, or both.
        start: "strict" for fresh weights in the first path and zero in the others, which the fit
            then tests and grows; "fresh" for weights in all.
        contractions: "learned", or "fixed" for random weights of products of objects. Those that
            are learned have a dense curvature: fix them in layers wider than some hundred channels.
        seed: Seed of the weights.

    Returns:
        Blocks named "0", "1", ... with a `RelaxedLayer` each, the last without a nonlinearity.

    Raises:
        ValueError: If a name is unknown, or representations and groups do not fit.
        TypeError: If one of them is something else.

    Example:
        >>> import symlearn, torch
        >>> from symlearn.groups import O, Scalar, V
        >>> net = symlearn.relaxed_mlp(2 * V, Scalar, O(3), width=16, depth=1)
        >>> net(torch.randn(5, 6)).shape, list(net[0].layer.paths)
        (torch.Size([5, 1]), ['emlp', 'fc'])
    """
    unknown = sorted(set(paths) - set(PATHS))
    if unknown or not paths or len(set(paths)) < len(paths):
        raise ValueError(f"paths are some of {list(PATHS)}, each once, got {list(paths)}")
    if start not in STARTS:
        raise ValueError(f"unknown start {start!r}; choose one of {list(STARTS)}")
    if contractions not in CONTRACTIONS:
        raise ValueError(
            f"unknown contractions {contractions!r}; choose one of {list(CONTRACTIONS)}"
        )
    check_count("depth", depth, 0)
    generator = seeded(seed)
    ends = _bound(rep_in, group), _bound(rep_out, group)
    hidden = width(group) if isinstance(width, Rep) else uniform(width, V(group))
    reps = [ends[0], *[hidden] * depth, ends[1]]
    blocks = []
    for i, (before, behind) in enumerate(zip(reps, reps[1:], strict=False)):
        last = i == depth
        out = behind if last else gated(behind)
        layer = RelaxedLayer(
            Geometry.of_vectors(before.dim + 1, out.dim),
            _specs(before + 1, out, group, subgroups, paths),
            bias=False,
        )
        _draw(layer, start, generator)
        after = nn.Identity() if last else _nonlinearity(behind, contractions, generator)
        blocks.append(RelaxedBlock(layer, after))
    return nn.Sequential(*blocks)


def supported_groups(model: nn.Module, report: StructureReport) -> dict[str, str]:
    """The largest group that the evidence leaves to each layer, of those that were offered.

    It is the largest one whose equivariant maps hold those of all paths in the layer's verdict. The
    network is equivariant under what all its layers have in common.

    Args:
        model: The fitted network.
        report: Its report.

    Returns:
        Layer name to the group as it is printed; "none" if no group is large enough or the free
        path is needed, "undecided" where the verdict is. Layers without an equivariant path are
        left out.
    """
    layers, found = relaxed_layers(model), {}
    for facts in report:
        specs = [spec for spec in layers[facts.name].specs if isinstance(spec, Emlp)]
        if specs:
            verdict = facts.supported
            undecided = verdict == rule.UNDECIDED
            found[facts.name] = verdict if undecided else _largest(specs, verdict.split("+"))
    return found


def _largest(specs: Sequence[Emlp], present: Sequence[str]) -> str:
    """The group with the fewest maps among which are those of all present paths."""
    bases = {spec.name: equivariant_basis(spec.rep_in >> spec.rep_out) for spec in specs}
    needed = [bases.get(name) for name in present if name != rule.OFF]
    for spec in sorted(specs, key=lambda spec: bases[spec.name].shape[1]):
        q = bases[spec.name]
        if all(b is not None and float((b - q @ (q.T @ b)).norm()) < _HELD for b in needed):
            return repr(spec.rep_in.group or spec.rep_out.group)
    return "none"


def _bound(rep: Rep, group: Group) -> Rep:
    if not isinstance(rep, Rep) or not isinstance(group, Group):
        raise TypeError(
            "relaxed_mlp takes representations such as 2 * V and a group such as O(3), got "
            f"{type(rep).__name__} and {type(group).__name__}"
        )
    return rep if rep.group == group else rep(group)


def _specs(
    before: Rep, out: Rep, group: Group, subgroups: Sequence[Group], paths: Sequence[str]
) -> list[PathSpec]:
    """The paths of a layer, the equivariant ones from the largest group to the smallest."""
    specs: list[PathSpec] = []
    for name in paths:
        if name == FC.name:
            specs.append(FC())
            continue
        specs.append(Emlp(before, out, _label(group) if subgroups else Emlp.name))
        specs += [Emlp(before.restrict(g), out.restrict(g), _label(g)) for g in subgroups]
    return specs


def _label(group: Group) -> str:
    return re.sub(r"\.+", "-", repr(group))  # a dot separates names of modules


def _draw(layer: RelaxedLayer, start: str, generator: torch.Generator) -> None:
    _, *others = layer.paths
    layer.reset_parameters(generator, absent=() if start == "fresh" else others)


def _nonlinearity(rep: Rep, contractions: str, generator: torch.Generator) -> nn.Module:
    """Contractions and gates."""
    after = EMLPNonlinearity(rep)
    after.bilinear.reset_parameters(generator)
    learned = contractions == "learned" and len(after.bilinear.weight) > 0
    return after.requires_grad_(learned)

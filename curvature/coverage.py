"""Which parameters the curvature covers, and how; nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

from curvature.rules import rule_for

KINDS = ("kronecker", "dense", "diagonal", "fixed")
FALLBACKS = ("error", "dense", "diagonal", "fixed")
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)


class UncoveredParameterError(ValueError):
    """Trainable parameters that no curvature rule covers."""


@dataclass(frozen=True)
class CoveredParameter:
    """One row of the coverage table.

    Attributes:
        name: Qualified parameter name.
        kind: One of `KINDS`.
        module: Class name of the module that owns it.
        shape: Shape of the parameter.
        reason: Why it has this kind.
    """

    name: str
    kind: str
    module: str
    shape: tuple[int, ...]
    reason: str


class Coverage(tuple[CoveredParameter, ...]):
    """The coverage table: one row per parameter of the model, in the model's order."""

    __slots__ = ()

    def names(self, kind: str) -> list[str]:
        """Names of the parameters of one kind."""
        return [row.name for row in self if row.kind == kind]

    def __str__(self) -> str:
        wide = max((len(row.name) for row in self), default=4)
        lines = [f"{'parameter':{wide}}  kind       shape"]
        lines += [
            f"{row.name:{wide}}  {row.kind:9}  {'x'.join(map(str, row.shape))}  ({row.reason})"
            for row in self
        ]
        return "\n".join(lines)


def _rows(
    model: nn.Module, fallback: str, only: Collection[str] | None
) -> Iterator[CoveredParameter | str]:
    """Yield a table row, or the description of an uncovered parameter."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        rule = rule_for(module)
        ruled = () if rule is None else (rule.weight, rule.bias)
        for short, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f"{prefix}.{short}" if prefix else short
            kind = type(module).__name__
            where = (kind, tuple(parameter.shape))
            if not parameter.requires_grad:
                yield CoveredParameter(name, "fixed", *where, "frozen (requires_grad=False)")
            elif only is not None and name not in only:
                yield CoveredParameter(name, "fixed", *where, "not asked for")
            elif short in ruled and owners[id(parameter)] == 1:
                yield CoveredParameter(name, "kronecker", *where, f"rule of {kind}")
            elif isinstance(module, _NORMS):
                yield CoveredParameter(name, "fixed", *where, "normalisation scale or shift")
            elif fallback != "error":
                yield CoveredParameter(name, fallback, *where, "fallback")
            else:
                tied = " shared by several modules" if owners[id(parameter)] > 1 else ""
                yield f"{name} {list(parameter.shape)} of {kind}{tied}"


def coverage(
    model: nn.Module, *, fallback: str = "error", only: Collection[str] | None = None
) -> Coverage:
    """List every parameter as Kronecker, dense, diagonal or fixed.

    Args:
        model: The network.
        fallback: Kind for trainable parameters without a rule: "dense" or "diagonal" (both by
            per-sample gradients), "fixed" (no curvature), or "error".
        only: Names of the trainable parameters wanted; the others are listed as fixed.

    Raises:
        UncoveredParameterError: If ``fallback="error"`` and trainable parameters have no rule; all
            of them are named.
        ValueError: For an unknown fallback, or names that the model does not have.
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"unknown fallback {fallback!r}; choose one of {list(FALLBACKS)}")
    unknown = sorted(set(only or ()) - {name for name, _ in model.named_parameters()})
    if unknown:
        raise ValueError(f"the model has no parameters named {unknown}")
    rows = list(_rows(model, fallback, only))
    missing = [row for row in rows if isinstance(row, str)]
    if missing:
        raise UncoveredParameterError(
            "no curvature rule covers these trainable parameters:\n  "
            + "\n  ".join(missing)
            + "\nRegister a rule for the module class (curvature.register_rule), pass "
            "fallback='diagonal' (or 'dense', 'fixed'), or freeze them (requires_grad_(False))."
        )
    return Coverage(row for row in rows if isinstance(row, CoveredParameter))

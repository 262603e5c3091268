"""Which parameters the curvature covers, and how; nothing is left out in silence."""

from __future__ import annotations

from collections import Counter
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
    nn.RMSNorm,
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


def _uses(model: nn.Module) -> Counter[int]:
    """How often each parameter object occurs, by id; more than once means it is tied."""
    return Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )


def _rows(
    model: nn.Module, fallback: str, only: Collection[str] | None
) -> Iterator[CoveredParameter]:
    """Rows of the table; a parameter that nothing covers has the kind "error" for now."""
    uses, seen = _uses(model), set[int]()
    for prefix, module in model.named_modules():
        rule = rule_for(module)
        ruled = () if rule is None else (rule.weight, rule.bias)
        others = {} if rule is None else rule.others
        for short, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name, owner = f"{prefix}.{short}" if prefix else short, type(module).__name__
            tied = uses[id(parameter)] > 1
            if not parameter.requires_grad:
                kind, reason = "fixed", "frozen (requires_grad=False)"
            elif only is not None and name not in only:
                kind, reason = "fixed", "not asked for"
            elif short in ruled and not tied:
                kind, reason = "kronecker", f"rule of {owner}"
            elif short in others and not tied:
                kind, reason = others[short], f"rule of {owner}"
            elif isinstance(module, _NORMS):
                kind, reason = "fixed", "normalisation scale or shift"
            else:
                kind, reason = fallback, "shared by several modules" if tied else "fallback"
            yield CoveredParameter(name, kind, owner, tuple(parameter.shape), reason)


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
        ValueError: For an unknown fallback, and in ``only`` for names that the model does not have
            and for parameters that are fixed.
        TypeError: If ``only`` is one string.
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"unknown fallback {fallback!r}; choose one of {list(FALLBACKS)}")
    if isinstance(only, str):
        raise TypeError(f"only={only!r} is one string; give a list of parameter names")
    unknown = sorted(set(only or ()) - {name for name, _ in model.named_parameters()})
    if unknown:
        raise ValueError(f"the model has no parameters named {unknown}")
    table = Coverage(_rows(model, fallback, only))
    missing = [row for row in table if row.kind == "error"]
    if missing:
        raise UncoveredParameterError(
            "no curvature rule covers these trainable parameters:\n"
            + "\n".join(_described(row) for row in missing)
            + "\nRegister a rule for the module class (curvature.register_rule), pass "
            "fallback='diagonal' (or 'dense', 'fixed'), or freeze them (requires_grad_(False))."
        )
    fixed = [row for row in table if only and row.name in only and row.kind == "fixed"]
    if fixed and fallback != "fixed":
        raise ValueError(
            "these parameters were asked for, but have no curvature:\n"
            + "\n".join(_described(row) for row in fixed)
        )
    return table


def _described(row: CoveredParameter) -> str:
    reason = "" if row.reason == "fallback" else f": {row.reason}"
    return f"  {row.name} {list(row.shape)} of {row.module}{reason}"

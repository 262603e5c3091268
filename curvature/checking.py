"""Checks of what a user hands over; each says what was given and what is accepted."""

from __future__ import annotations

import math

import torch
from torch import nn

_SHOWN = 5  # names listed in one error


def check_module(model: object) -> None:
    """Refuse what is not a network.

    Raises:
        TypeError: If the object is not a torch module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")


def check_weights(model: nn.Module) -> None:
    """Refuse a network whose weights or buffers are not finite; those on meta are not looked at.

    Raises:
        ValueError: If some are NaN or infinite; they are named.
    """
    named = (*model.named_parameters(), *model.named_buffers())
    floating = ((n, t.detach()) for n, t in named if t.is_floating_point() and not t.is_meta)
    bad = [name for name, t in floating if not bool(torch.isfinite(t).all())]
    if bad:
        some = ", ".join(bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
        raise ValueError(
            f"the network's weights contain NaN or infinite values ({some}); take the weights from "
            "before they diverged"
        )


def check_real(model: nn.Module) -> None:
    """Refuse a network without values.

    Raises:
        ValueError: If weights are on the meta device.
    """
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("the network's weights are on the meta device, which holds no values")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not a whole number of some size.

    Raises:
        ValueError: If it is none.
    """
    if not is_count(value, least):
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is a whole number of some size (True and False are not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a positive number.

    Raises:
        ValueError: If it is none, or not finite.
    """
    if not (is_number(value) and value > 0):  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; give a positive number")


def is_number(value: object) -> bool:
    """Whether a value is a finite number (True and False are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_seed(value: object) -> bool:
    """Whether generators of random numbers take a value as their seed."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and -(2**63) <= value < 2**64  # type: ignore[operator]


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers on the CPU.

    Raises:
        ValueError: If the seed is no whole number of 64 bits.
    """
    if not is_seed(seed):
        raise ValueError(f"seed is {seed!r}; give a whole number of 64 bits")
    return torch.Generator().manual_seed(seed)

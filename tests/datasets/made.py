"""Images and files made for the tests of the data sets."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from symlearn.datasets import ImageSet


def numbered(n: int, size: int = 8, classes: int = 10, channels: int = 1) -> ImageSet:
    """Random positive images, of which pixel (0, 0, 0) is the image's own number."""
    x = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0)) + 0.1
    x[:, 0, 0, 0] = torch.arange(n)
    return ImageSet(x, torch.arange(n) % classes, classes, "numbered")


def numbers(images: ImageSet) -> list[int]:
    return images.x[:, 0, 0, 0].long().tolist()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write the documented format, gzipped if the name ends in .gz."""
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    raw = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)


def dots(n: int, size: int = 17) -> ImageSet:
    """One bright pixel in the middle of each image."""
    x = torch.zeros(n, 1, size, size)
    x[:, :, size // 2, size // 2] = 1
    return ImageSet(x, torch.zeros(n).long(), 1, "dots")

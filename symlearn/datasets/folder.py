"""A folder of pictures sorted into one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from symlearn.datasets.imageset import ImageSet, from_arrays
from symlearn.datasets.readers import Bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def image_folder(root: str | Path, size: int | None = None) -> ImageSet:
    """Read ``root/CLASS/PICTURE``; classes are numbered in the order of their folders' names.

    If every picture is grey there is one channel, otherwise three.

    Args:
        root: The folder of folders.
        size: Height and width in pixels to resize to (bilinear, antialiased). Needed where the
            pictures differ in size.

    Returns:
        Images [N, C, H, W] in [0, 1] with their classes, in the order of the files' names.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a class has no picture or there are none, if a picture cannot be read, or
            if sizes differ and none is given. All such files are counted, the first is named.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root} (give one that has a folder per class)")
    if size is not None and size < 1:
        raise ValueError(f"size is {size}; give at least 1 pixel")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    files = [(path, label) for label, folder in enumerate(folders) for path in _pictures(folder)]
    empty = [folder.name for folder in folders if not _pictures(folder)]
    if not files or empty:
        raise ValueError(
            f"{root}: folders without a picture: {empty or 'all'}; give a folder per class with "
            f"files ending in {', '.join(SUFFIXES)}"
        )
    pictures = [_read(path, size) for path, _ in files]
    _check_sizes(root, [path for path, _ in files], pictures)
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [
            np.broadcast_to(p[..., None], (*p.shape, 3)) if p.ndim == 2 else p for p in pictures
        ]
    labels = [label for _, label in files]
    return from_arrays(np.stack(pictures), labels, classes=len(folders), name=root.name)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _read(path: Path, size: int | None) -> Bytes:
    """Bytes [H, W] of a grey picture, [H, W, 3] of any other."""
    try:
        with Image.open(path) as picture:
            # Pillow cuts 16-bit values off at 255 when it converts them.
            if picture.mode in ("I;16", "I", "F"):
                raise ValueError(f"{path} has {picture.mode} pixels; give 8 bits per channel")
            grey = picture.mode in ("1", "L", "LA")
            converted = picture.convert("L" if grey else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    if size is not None:
        converted = converted.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(converted)


def _check_sizes(root: Path, paths: list[Path], pictures: list[Bytes]) -> None:
    shape = pictures[0].shape[:2]
    other = [i for i, picture in enumerate(pictures) if picture.shape[:2] != shape]
    if other:
        first = pictures[other[0]].shape[:2]
        raise ValueError(
            f"{root}: {len(other)} of {len(pictures)} pictures are not {shape[0]}x{shape[1]} as "
            f"{paths[0].name} is; {paths[other[0]].name} is {first[0]}x{first[1]}: give a size"
        )

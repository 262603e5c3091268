"""Pictures in folders: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from symlearn.datasets import image_folder

pytestmark = pytest.mark.core


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    for name, given in zip(("b/1.png", "a/2.png", "b/0.png"), pixels, strict=True):
        save(tmp_path / name, given)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    found = image_folder(tmp_path)
    assert found.y.tolist() == [0, 1, 1]
    assert torch.equal(found.x[:, 0], torch.as_tensor(pixels[[1, 2, 0]]) / 255)


def test_one_coloured_picture_makes_all_coloured(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", np.full((2, 2), 51, np.uint8))
    save(tmp_path / "b" / "1.png", np.full((2, 2, 3), (0, 51, 255), np.uint8))
    found = image_folder(tmp_path)
    assert found.x.shape == (2, 3, 2, 2)
    assert found.x[0].eq(51 / 255).all()
    assert found.x[1, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])


def test_resizing_makes_sizes_equal(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", np.full((9, 4), 100, np.uint8))
    save(tmp_path / "b" / "1.png", np.full((4, 9), 100, np.uint8))
    assert image_folder(tmp_path, 6).x.eq(100 / 255).all()
    with pytest.raises(ValueError, match=r"1 of 2 pictures are not 9x4 .* is 4x9: give a size"):
        image_folder(tmp_path)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"folders without a picture: \['a'\]"):
        image_folder(tmp_path)
    (tmp_path / "a" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is not a picture that can be read"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        image_folder(tmp_path, 0)
    save(tmp_path / "a" / "1.png", np.full((2, 2), 900, np.uint16))
    with pytest.raises(ValueError, match="give 8 bits per channel"):
        image_folder(tmp_path)

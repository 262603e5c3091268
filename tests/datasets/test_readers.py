"""Files of other people: idx, and CIFAR-10's pickles, whole, damaged or hostile."""

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from symlearn import datasets
from tests.datasets.made import write_idx

pytestmark = pytest.mark.core


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (0, 28, 28), (1, 2, 1, 2)])
@pytest.mark.parametrize("name", ["values-idx", "values-idx.gz"])
def test_idx_round_trip(tmp_path: Path, shape: tuple[int, ...], name: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape)
    write_idx(tmp_path / name, array)
    values = datasets.read_idx(tmp_path / name)
    assert values.dtype == torch.uint8
    assert torch.equal(values, torch.from_numpy(array).to(torch.uint8))


GOOD_IDX = struct.pack(">BBBB2i", 0, 0, 8, 2, 2, 3) + bytes(6)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not an idx file"),
        (b"<htm", "starts with '3c 68 74 6d'"),
        (b"\0\0\x0d\x01" + GOOD_IDX[4:], "not an idx file of bytes"),
        (b"\0\0\x08\0", "not an idx file"),
        (GOOD_IDX[:10], "truncated in its header: 10 bytes; 2 dimensions need 12"),
        (GOOD_IDX[:-1], r"truncated: 5 bytes of data; the header states \[2, 3\], 6 bytes"),
        (GOOD_IDX + b"\0", "foreign: 7 bytes of data"),
        (GOOD_IDX[:4] + struct.pack(">2i", -2, -3) + bytes(6), r"states \[-2, -3\]"),
        (gzip.compress(GOOD_IDX, mtime=0)[:-9], "gzip data truncated or damaged"),
        (gzip.compress(GOOD_IDX, mtime=0)[:-8] + bytes(8), "gzip data truncated or damaged"),
        (b"\x1f\x8b" + bytes(20), "gzip data truncated or damaged"),
    ],
)
def test_a_damaged_or_foreign_idx_file_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "file-idx"
    path.write_bytes(GOOD_IDX)
    datasets.read_idx(path)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        datasets.read_idx(path)


# CIFAR-10, whose files are pickles


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Pickle as Python 2 did for the published files: protocol 2, byte strings."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R("
    dtype += number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85"
    array += text(b"b") + b"\x87R(" + number(1) + number(len(pixels)) + number(3072) + b"\x86"
    array += dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    items = text(b"data") + array + text(b"labels")
    return b"\x80\x02}(" + items + b"](" + b"".join(map(number, labels)) + b"eu."


def python3_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": labels}, protocol=4)


@pytest.mark.parametrize("dump", [python2_batch, python3_batch])
@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_reads_the_published_layout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dump: Callable[[np.ndarray, list[int]], bytes],
    inside: bool,
) -> None:
    monkeypatch.setattr("symlearn.datasets.sources._CIFAR_TRAIN", [5] * 10)
    monkeypatch.setattr("symlearn.datasets.sources._CIFAR_TEST", [1] * 10)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3072), dtype=np.uint8)
    for batch, name in zip(pixels, [*"12345", "test"], strict=True):
        file = "test_batch" if name == "test" else f"data_batch_{name}"
        (folder / file).write_bytes(dump(batch, list(range(10))))
    train, test = datasets.cifar10(tmp_path if inside else folder)
    assert train.x.shape == (50, 3, 32, 32)
    assert test.y.tolist() == list(range(10))
    expected = pixels[:5].reshape(50, 3, 32, 32) / np.float32(255)
    torch.testing.assert_close(train.x, torch.from_numpy(expected))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="images per class are .5, 5"):
        datasets.cifar10(tmp_path)


def test_the_python2_pickle_of_this_test_is_one() -> None:
    pixels = np.arange(6144).astype(np.uint8).reshape(2, 3072)
    batch = pickle.loads(python2_batch(pixels, [3, 8]), encoding="latin1")
    assert (batch["data"] == pixels).all()
    assert batch["labels"] == [3, 8]


class Touch:
    """Creates a file when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_foreign_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap, batch = tmp_path / "trap", tmp_path / "test_batch"
    raw = pickle.dumps({"data": Touch(trap), "labels": []}, protocol=4)
    pickle.loads(raw)
    assert trap.exists()
    trap.unlink()
    batch.write_bytes(raw)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(raw)
    with pytest.raises(ValueError, match="it names .* refused: it could run code"):
        datasets.cifar10(tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "names posix.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "names __builtin__.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "names numpy.load"),
        (pickle.dumps(np.zeros(3), protocol=4), "array of 'f8'"),
        (pickle.dumps(np.array([None]), protocol=4), "array of 'O8'"),
        (pickle.dumps({"data": [1], "labels": [1]}), "no attribute 'array'"),
        (pickle.dumps([1, 2]), "no attribute 'items'"),
        (python3_batch(np.zeros((2, 3072), np.uint8), [1]), r"\[2, 3072\] pixels, 1 labels"),
        (python3_batch(np.zeros((1, 100), np.uint8), [1]), r"\[1, 100\] pixels"),
        (python2_batch(np.zeros((1, 3072), np.uint8), [1])[:-40], "not a CIFAR-10 batch"),
        (b"", "not a CIFAR-10 batch"),
        (b"cnumpy\ndtype\n}b.", "not a CIFAR-10 batch"),
    ],
)
def test_a_pickle_that_is_no_batch_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    for name in ["test_batch", *(f"data_batch_{i}" for i in range(1, 6))]:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        datasets.cifar10(tmp_path)


def test_missing_cifar10_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="extract cifar-10-python.tar.gz"):
        datasets.cifar10(tmp_path)

"""Bad files and folders: what load, load_plain, resume and save refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

import symlearn
from tests.bad_input.case import Bad, lazy
from tests.bad_input.scene import (
    NAN,
    X,
    Y,
    checkpoints,
    cnn,
    fit,
    fitted,
    folder,
    relaxed,
    saved,
)

FACTS, REPORT, TENSORS = "result.json", "report.json", "tensors.safetensors"


@lazy
def spoilt(name: str, change: Callable[[Path], object], source: Path) -> Path:
    """A copy of a folder in which something is changed."""
    copy = folder().with_name(name.replace(" ", "-"))
    shutil.copytree(source, copy, dirs_exist_ok=True)
    change(copy)
    return copy


def load(given: str, says: str, change: Callable[[Path], object], *, cut: str = "") -> Bad:
    """A case of `symlearn.load` of a spoilt result."""
    path = spoilt(f"load {given}", change, saved())
    return Bad(f"load: {given}", symlearn.load, [path], ValueError, says, cut)


def cut_short(name: str) -> Callable[[Path], object]:
    """Keep half of a file."""

    def change(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])

    return change


def facts(**changes: Any) -> Callable[[Path], object]:
    """Replace facts of a result; ``...`` removes one."""

    def change(path: Path) -> None:
        given = json.loads((path / FACTS).read_text())
        kept = {k: v for k, v in {**given, **changes}.items() if v is not ...}
        (path / FACTS).write_text(json.dumps(kept))

    return change


def tensor(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    """Change one tensor of a result."""

    def alter(path: Path) -> None:
        tensors = load_file(path / TENSORS)
        tensors[name] = change(tensors[name])
        save_file(tensors, path / TENSORS)

    return alter


def resume(given: str, says: str, path: Any, n: int = 12, *, error: Any = ValueError,
           cut: str = "", **options: Any) -> Bad:  # fmt: skip
    """A case of going on from a checkpoint."""

    def act(net: Any, data: Any, path: Any) -> object:
        return fit(net, data, resume=path, **options)

    things = [relaxed(), (X[:n], Y[:n]), path]
    return Bad(f"resume: {given}", act, things, error, says, cut)


def newest(path: Path) -> Path:
    """The newest checkpoint in a folder."""
    return max(path.glob("epoch-*"))


def halve(path: Path) -> None:
    """Keep half of the newest checkpoint."""
    cut_short(newest(path).name)(path)


def stray(path: Path) -> None:
    """Put another file into a folder."""
    (path / "notes.txt").write_text("mine")


@lazy
def a_file() -> Path:
    """A file where a folder should be."""
    path = folder().with_name("file")
    path.write_text("mine")
    return path


def missing() -> Path:
    """A folder that is not there."""
    return folder().with_name("missing")


WEIGHT = "model.0.paths.conv.conv.weight"

FILES = [
    Bad("load: a folder that is not there", symlearn.load, [missing()], FileNotFoundError,
        "is not a saved result"),
    Bad("load: a folder of checkpoints", symlearn.load, [checkpoints()], FileNotFoundError,
        "is not a saved result"),
    Bad("load: no path", symlearn.load, [None], TypeError, "got NoneType"),
    Bad("load: a model that is no module", symlearn.load, [saved(), "net"], TypeError, "got str"),
    Bad("load: a plain network as the model", symlearn.load, [saved(), cnn()], ValueError,
        "the saved one ['0', '2']"),
    Bad("load: a network with other paths", symlearn.load, [saved(), relaxed(paths="conv")],
        ValueError, "does not fit the saved", "does not fit the saved weights:"),
    load("half a result.json", "damaged", cut_short(FACTS), cut="is damaged:"),
    load("half a report.json", "truncated or damaged", cut_short(REPORT), cut="or damaged"),
    load("half of the tensors", "damaged or foreign", cut_short(TENSORS), cut="foreign:"),
    load("another format", "not in the format", facts(format="other/1")),
    load("no config", "lacks ['config']", facts(config=...)),
    load("a config that is a list", "damaged", facts(config=[]), cut="is damaged:"),
    load("options of another version", "['shiny']", facts(config={"shiny": 1})),
    load("prior groups that are a list", "damaged", facts(prior_groups=[1]), cut="is damaged:"),
    load("a history that is text", "damaged", facts(history="x"), cut="is damaged:"),
    load("other layers", "the saved one []", facts(enabled={})),
    load("paths that do not exist", "no paths ['gconv']",
         facts(enabled={"0": ["gconv"], "2": []})),
    load("a foreign structure", "not a network description", facts(architecture=[3]),
         cut="network description:"),
    load("weights that are NaN", f"({WEIGHT.removeprefix('model.')})",
         tensor(WEIGHT, lambda w: w * NAN)),
    load("weights of another shape", "does not fit the saved", tensor(WEIGHT, lambda _: X[:1]),
         cut="does not fit the saved weights:"),
    load("precisions that are NaN", "NaN or infinite",
         tensor("prior.log_precision", lambda v: v * NAN)),
    Bad("load_plain: no path", symlearn.load_plain, [3], TypeError, "got int"),
    Bad("load_plain: a folder", symlearn.load_plain, [saved()], FileNotFoundError, "no such file"),
    Bad("StructureReport.from_json: half a report", symlearn.StructureReport.from_json, ["{"],
        ValueError, "truncated or damaged", "or damaged"),
    Bad("StructureReport.from_json: a number", symlearn.StructureReport.from_json, [3], TypeError,
        "got int"),
    Bad("save: into a folder with other files", symlearn.FitResult.save,
        [fitted(), spoilt("stray", stray, saved())], FileExistsError, "holds other files"),
    Bad("save: over a file", symlearn.FitResult.save, [fitted(), a_file()], NotADirectoryError,
        "which is a file"),
    Bad("save: no path", symlearn.FitResult.save, [fitted(), None], TypeError, "got NoneType"),
    Bad("checkpoint_dir: a file", lambda net, data, path: fit(net, data, checkpoint_dir=path),
        [relaxed(), (X, Y), a_file()], NotADirectoryError, "which is a file"),
    Bad("checkpoint_dir: of another fit",
        lambda net, data, path: fit(net, data, checkpoint_dir=path),
        [relaxed(), (X, Y), checkpoints()], FileExistsError, "go on with it by"),
    Bad("checkpoint_dir: every half epoch",
        lambda net, data, path: fit(net, data, checkpoint_dir=path, every=0.5),
        [relaxed(), (X, Y), missing()], ValueError, "every is 0.5"),
    resume("a folder that is not there", "no checkpoint at", missing(), error=FileNotFoundError),
    resume("a saved result", "is read by symlearn.load", saved(), error=FileNotFoundError),
    resume("a checkpoint cut short", "damaged", spoilt("halved", halve, checkpoints()),
           cut="or no checkpoint"),
    resume("other data", "12 samples, here 8", checkpoints(), n=8),
    resume("another config", "its config has seed=0, not 1", checkpoints(), seed=1),
]  # fmt: skip

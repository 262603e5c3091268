"""What callbacks write, in one go and after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import symlearn
from symlearn.callbacks import JsonLines, TensorBoard
from tests.conftest import need
from tests.fit.problems import blobs

CONFIG = symlearn.FitConfig(epochs=4, burn_in=0.0, early_stop=False, grow=False, progress=False)


def relaxed() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    x, y = blobs(40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        net(x)
    return symlearn.wrap(net, x[:1]), (x, y)


@pytest.mark.core
def test_json_lines_are_the_history(tmp_path: Path) -> None:
    model, data = relaxed()
    file = tmp_path / "log.jsonl"
    file.write_text("of an earlier fit\n")
    result = symlearn.fit(model, data, CONFIG, callbacks=[JsonLines(file)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [record.to_dict() for record in result.history]
    assert any(line["log_evidence"] is not None for line in lines)


@pytest.mark.core
def test_json_lines_of_a_resumed_fit_are_whole(tmp_path: Path) -> None:
    model, data = relaxed()
    folder = tmp_path / "kept"

    class Kill(Exception):
        pass

    def kill(fitting: object) -> None:
        if fitting.epoch == 3:  # type: ignore[attr-defined]
            raise Kill

    with pytest.raises(Kill):
        symlearn.fit(model, data, CONFIG, callbacks=[kill], checkpoint_dir=folder)
    log = JsonLines(tmp_path / "log.jsonl")
    result = symlearn.fit(model, data, CONFIG, callbacks=[log], resume=folder)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert lines == [record.to_dict() for record in result.history]
    assert len(lines) == 4


def test_tensorboard_shows_every_curve(tmp_path: Path) -> None:
    need("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, data = relaxed()
    result = symlearn.fit(model, data, CONFIG, callbacks=[TensorBoard(tmp_path)])
    seen = EventAccumulator(str(tmp_path)).Reload()
    loss = [(event.step, event.value) for event in seen.Scalars("train/nll")]
    wanted = [(record.epoch, record.train_nll) for record in result.history]
    assert [step for step, _ in loss] == [epoch for epoch, _ in wanted]
    assert [value for _, value in loss] == pytest.approx([nll for _, nll in wanted], rel=1e-6)
    curves = {f"precision/{group}" for group in result.prior.groups}
    assert curves | {"evidence/per_sample", "train/learning_rate"} <= set(seen.Tags()["scalars"])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    need("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="give a folder"):
        TensorBoard(tmp_path / "file")
    with pytest.raises(TypeError, match="must be a path"):
        JsonLines(3)  # type: ignore[arg-type]


@pytest.mark.core_only
def test_the_missing_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"symlearn-torch\[tensorboard\]"):
        TensorBoard(tmp_path)

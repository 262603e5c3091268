"""Checkpoints: going on from one equals no interruption; anything else is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import symlearn
from symlearn import FitConfig
from symlearn.fit import Fitting, checkpoint, tree
from symlearn.fit.checkpoint import checkpoints, read
from tests.fit.continuing import CASES, QUICK, eventful, outcome
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(tmp_path: Path, case: str) -> None:
    """From the start, the middle and the end; saving itself changes nothing."""
    expected = outcome(symlearn.fit(*CASES[case]()))
    model, data, config = CASES[case]()
    saved = symlearn.fit(model, data, config, checkpoint_dir=tmp_path, keep=99)
    assert outcome(saved) == expected
    files = checkpoints(tmp_path)
    epochs = list(files)
    assert epochs[0] == 0
    assert epochs[-1] == len(saved.history)
    for epoch in (epochs[0], epochs[len(epochs) // 2], epochs[-2]):
        model, data, config = CASES[case]()
        assert outcome(symlearn.fit(model, data, config, resume=files[epoch])) == expected, epoch


def test_cases_are_what_they_say(tmp_path: Path) -> None:
    """The eventful fit grows, challenges and removes; the memorised one sets data aside."""
    result = symlearn.fit(*eventful())
    assert any(record.grown for record in result.history)
    assert any("removed" in str(value) for value in result.report.meta.values())
    assert len(Fitting(*CASES["memorised"]()).data.held) == 16


def _moments_at_zero(state: dict[str, Any]) -> None:
    for saved in state["state"]["optimiser"].values():
        saved["moments"] = {}


def _other(*keys: str) -> Callable[[dict[str, Any]], None]:
    """Change one number or tensor of the state."""

    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = state[keys[-1]] + 1

    return change


def _reseeded(state: dict[str, Any]) -> None:
    state["generator"] = torch.Generator().manual_seed(12345).get_state()


def _unrejected(state: dict[str, Any]) -> None:
    state["state"]["rejected"] = []


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "moments": _moments_at_zero,
    "average": _other("state", "average", "values", "0.bias"),
    "average steps": _other("state", "average", "steps"),
    "weights": _other("state", "model", "0.bias"),
    "precisions": _other("state", "prior", "log_precision"),
    "generator": _reseeded,
    "next evidence step": _other("schedule", "_next"),
    "final annealing": _other("schedule", "anneal_from"),
    "tests of absent paths": lambda state: state["counters"].update(_since_test=7),
    "paths challenged": lambda state: state.update(challenged=[]),
    "losses": lambda state: state.update(losses=[9.0, 9.0, 1.0]),
    "rejections": _unrejected,
}


@pytest.mark.parametrize("part", CHANGES)
def test_every_part_of_the_state_matters(part: str) -> None:
    """A state that is changed in one part leads elsewhere: the comparison is not blind to it."""
    model, _, config = eventful()
    data = blobs(60, place=True)
    # paths are rejected twice before they go, tests of absent paths are two steps apart
    config = replace(config, challenge_epochs=1, off_after=2, grow_every=2, average=0.9)
    run = Fitting(model, data, config)
    changed = None
    while not run.ended and changed is None:
        run.advance()
        state = json_copy(run.state_dict())
        CHANGES[part](state)
        after = ends(Fitting(eventful()[0], data, config, state))
        same = ends(Fitting(eventful()[0], data, config, json_copy(run.state_dict())))
        changed = True if after != same else None
    assert changed


def json_copy(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it comes back from a file."""
    copied: dict[str, Any] = tree.unpack(tree.pack(state))
    return copied


def ends(run: Fitting) -> dict[str, Any]:
    """Outcome of a fit in progress."""
    with torch.random.fork_rng():
        while not run.ended:
            run.advance()
        return outcome(run.finish())


def test_nothing_is_left_at_its_start() -> None:
    """Also what seldom matters comes back: values that a fresh fit would not have."""
    model, data, config = eventful()
    run = Fitting(model, data, config)
    run.advance()
    for number, name in enumerate(vars(run.schedule)):
        if name != "config":
            setattr(run.schedule, name, 100 + number)
    run.state.optimiser.set_lr(0.123)
    dict(run.model.named_parameters())["2.bias"].requires_grad_(False)
    run.state.rejected[("2", "ffc")] = 7
    run._null_loss, run._since_test, run.stopped = 0.5, 5, True
    again = Fitting(eventful()[0], data, config, json_copy(run.state_dict()))
    assert again.state.rejected == run.state.rejected
    assert vars(again.schedule) == vars(run.schedule)
    assert {group["lr"] for group in again.state.optimiser.param_groups} == {0.123}
    frozen = [n for n, p in again.model.named_parameters() if not p.requires_grad]
    assert "2.bias" in frozen
    assert frozen == [n for n, p in run.model.named_parameters() if not p.requires_grad]
    plain = ("epoch", "history", "challenges", "_losses", "_challenged", "_outputs", "_identity")
    for name in (*plain, "_null_loss", "_since_test", "stopped"):
        assert getattr(again, name) == getattr(run, name), name
    known = {*plain, "_null_loss", "_since_test", "stopped", "schedule", "state", "generator"}
    assert set(vars(run)) == known | {"config", "data", "precisions", "processes", "_started"}


def short(folder: Path, **options: Any) -> symlearn.FitResult:
    """A fit of two epochs with checkpoints."""
    config = replace(QUICK, epochs=2, grow=False)
    return symlearn.fit(tiny_relaxed(), blobs(40), config, checkpoint_dir=folder, **options)


def test_safetensors_only_and_the_last_ones_kept(tmp_path: Path) -> None:
    short(tmp_path / "a" / "b", keep=2)
    assert list(checkpoints(tmp_path / "a" / "b")) == [1, 2]
    names = [p.name for p in (tmp_path / "a" / "b").iterdir()]
    assert sorted(names) == ["epoch-00000001.safetensors", "epoch-00000002.safetensors"]
    short(tmp_path / "rare", every=5)
    assert list(checkpoints(tmp_path / "rare")) == [0, 2]
    for path in checkpoints(tmp_path / "rare").values():
        assert b"\x80\x04" not in path.read_bytes()[:16]
        assert {"torch", "numpy", "python", "symlearn"} < set(header(path))


def header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file."""
    raw = path.read_bytes()
    found: dict[str, str] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])[
        "__metadata__"
    ]
    return found


def rewritten(path: Path, **changes: str) -> None:
    """Change a checkpoint's metadata."""
    save_file(load_file(path), path, metadata={**header(path), **changes})


def test_other_fits_checkpoints_are_not_overwritten(tmp_path: Path) -> None:
    short(tmp_path)
    with pytest.raises(FileExistsError, match="another fit; go on with it by resume="):
        short(tmp_path)
    short(tmp_path / "two")
    with pytest.raises(FileExistsError, match="another fit"):
        short(tmp_path, resume=tmp_path / "two")
    short(tmp_path, resume=tmp_path)
    # going on from an older one gives up what came after it
    files = checkpoints(tmp_path)
    later = tmp_path / "epoch-00000009.safetensors"
    files[2].rename(later)
    short(tmp_path, resume=files[1])
    assert list(checkpoints(tmp_path)) == [0, 1, 2]
    for options in ({"every": 0}, {"keep": 1.5}):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            short(tmp_path / "new", **options)


def test_damage_is_refused(tmp_path: Path) -> None:
    short(tmp_path)
    path = checkpoints(tmp_path)[2]
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cannot resume from .* damaged.*one before it"):
            read(tmp_path)
    start = 8 + int.from_bytes(whole[:8], "little")
    spread = range(start, len(whole), (len(whole) - start) // 40)
    for place in (0, 9, start - 3, *spread, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged|no checkpoint"):
            read(path)
    for text in (b"", b"PK\x03\x04", b"\x80\x04\x95 pickle", whole[::-1], b"\0" * 4096):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="cannot resume"):
            read(path)
    assert read(checkpoints(tmp_path)[1])["counters"]["epoch"] == 1


def test_foreign_and_older_files_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="no checkpoint at"):
            read(place)
    save_file({"x": torch.zeros(2)}, tmp_path / "epoch-00000001.safetensors")
    with pytest.raises(ValueError, match="no checkpoint: its format is 'none'"):
        read(tmp_path)
    short(tmp_path / "run").save(tmp_path / "result")
    with pytest.raises(FileNotFoundError, match=r"symlearn\.load"):
        read(tmp_path / "result")
    path = checkpoints(tmp_path / "run")[2]
    rewritten(path, format="symlearn.checkpoint/0", symlearn="0.0.1")
    with pytest.raises(ValueError, match=r"reads only .*resume it with symlearn 0\.0\.1"):
        read(path)
    rewritten(path, format=checkpoint.FORMAT, symlearn="1.0")
    with pytest.warns(UserWarning, match=r"written with symlearn 1\.0, now"):
        read(path)


class Extra(nn.Module):
    """The tiny network without its last map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_relaxed()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return out


def test_other_models_data_and_configs_are_refused(tmp_path: Path) -> None:
    short(tmp_path)
    x, y = blobs(40)
    slanted = tiny_relaxed()
    slanted[1] = nn.SiLU()  # type: ignore[index]
    config = replace(QUICK, epochs=2, grow=False)
    for model, data, options, reason in (
        (tiny_relaxed(paths="conv"), (x, y), config, r"another model: tensors differ \(0.paths"),
        (Extra(), (x, y), config, "another model: tensors differ"),
        (tiny_relaxed().double(), (x.double(), y), config, "another model: tensors differ"),
        (slanted, (x, y), config, "another model: the weights have the same shapes"),
        (tiny_relaxed(), (x + 1e-3, y), config, "other training data"),
        (tiny_relaxed(), (x[:30], y[:30]), config, r"other training data \(40 samples, here 30\)"),
        (tiny_relaxed(), (x, y), replace(config, seed=3), "seed=0, not 3"),
        (
            slanted,
            (x, 1 - y),
            replace(config, epochs=3),
            "epochs=2, not 3; .*model: .*as many",
        ),
    ):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ValueError, match=reason):
            symlearn.fit(model, data, options, resume=tmp_path)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    again = symlearn.fit(tiny_relaxed(), (x, y), resume=tmp_path)
    assert again.config == config
    symlearn.fit(tiny_relaxed(), (x, y), replace(config, progress=None), resume=tmp_path)


def test_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(short(tmp_path / "whole"))
    write, seen = Path.write_bytes, [0]

    def full(path: Path, data: bytes) -> int:
        seen[0] += 1
        if seen[0] == 3:
            write(path, data[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write a checkpoint: No space.*epoch-00000001"):
        short(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "epoch-00000000.safetensors",
        "epoch-00000001.safetensors",
    ]
    assert outcome(short(tmp_path / "run", resume=tmp_path / "run")) == expected


def test_a_fit_ended_by_a_callback_stays_ended(tmp_path: Path) -> None:
    result = short(tmp_path, callbacks=[lambda run: run.epoch == 1])
    assert len(result.history) == 1
    again = symlearn.fit(tiny_relaxed(), blobs(40), resume=tmp_path)
    assert outcome(again) == outcome(result)


def press(times: int) -> Callable[[Fitting], None]:
    """A callback that presses Ctrl-C in the first epoch."""

    def callback(run: Fitting) -> None:
        for _ in range(times if run.epoch == 1 else 0):
            signal.raise_signal(signal.SIGINT)

    return callback


def test_one_ctrl_c_saves_and_stops(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = outcome(short(tmp_path / "whole"))
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="stopped after epoch 1; go on with resume="):
        short(folder, every=9, callbacks=[press(1)])
    assert "finishing the epoch" in capfd.readouterr().err
    assert list(checkpoints(folder)) == [0, 1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert outcome(short(folder, resume=folder)) == expected


def test_two_stop_at_once_and_without_a_folder_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        short(tmp_path, every=9, callbacks=[press(2)])
    assert list(checkpoints(tmp_path)) == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        symlearn.fit(tiny_relaxed(), blobs(40), QUICK, callbacks=[press(1)])


def test_in_another_thread(tmp_path: Path) -> None:
    """Only the main thread can have a handler; a fit elsewhere goes without."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            short(tmp_path)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert list(checkpoints(tmp_path)) == [0, 1, 2]


def test_state_that_is_no_tensor_is_told() -> None:
    with pytest.raises(TypeError, match="a/1/b is a set; only numbers, text and tensors"):
        tree.split({"a": [0, {"b": set()}]})


def test_trees_round_trip() -> None:
    """Names with slashes, tensors that share memory, empty, scalar and of any type."""
    base = torch.arange(6.0)
    given = {
        "a/b": base[:3],
        "a": {"b": base[3:], "~": torch.tensor(True), "n": float("nan")},
        "list": [1, None, "x", [torch.zeros(0, 2, dtype=torch.bfloat16)]],
    }
    facts, tensors = tree.split(given)
    assert len(tensors) == 4
    back = tree.join(json.loads(json.dumps(facts)), tensors)
    assert torch.equal(back["a/b"], base[:3])
    assert torch.equal(back["a"]["b"], base[3:])
    assert bool(back["a"]["~"])
    assert back["list"][:3] == [1, None, "x"]
    assert back["list"][3][0].dtype == torch.bfloat16
    assert tree.checksum(tensors) != tree.checksum({**tensors, "x": base})


def test_reading_warns_of_nothing(tmp_path: Path) -> None:
    short(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path)
        assert isinstance(FitConfig.from_dict(read(tmp_path)["config"]), FitConfig)

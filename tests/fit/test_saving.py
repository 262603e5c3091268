"""Save, load, collapse: nothing is lost, nothing is pickled, damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import symlearn
from symlearn import Circular, FitConfig, architecture
from tests.fit.problems import blobs, tiny_cnn, tiny_relaxed

QUICK = FitConfig(epochs=3, burn_in=0.25, progress=False, batch_size=32)


class Custom(nn.Module):
    """A network that cannot be described by names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_cnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return out


@pytest.mark.core
@pytest.mark.parametrize("boundary", ["keep", "circular", Circular("polyphase")], ids=str)
def test_round_trip(tmp_path: Path, boundary: object) -> None:
    x, y = blobs()
    result = symlearn.fit(tiny_relaxed(boundary=boundary), (x, y), QUICK)
    result.save(tmp_path / "run")
    again = symlearn.load(tmp_path / "run")
    assert torch.equal(again.predict_proba(x), result.predict_proba(x))
    assert again.report.to_json() == result.report.to_json()
    assert again.config == result.config
    assert again.history == result.history
    assert torch.equal(again.prior.log_precision, result.prior.log_precision)
    resumed = symlearn.fit(again.model, (x, y), QUICK, resume=again)
    expected = symlearn.fit(result.model, (x, y), QUICK, resume=result)
    assert resumed.log_evidence == expected.log_evidence


def test_only_safetensors_and_json_and_saving_again_replaces(tmp_path: Path) -> None:
    x, y = blobs()
    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK)
    result.save(tmp_path / "run")
    result.save(tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["report.json", "result.json", "tensors.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (tmp_path / "run" / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="other files"):
        result.save(tmp_path / "run")
    assert (tmp_path / "run" / "mine.txt").exists()


def test_custom_networks_need_a_model(tmp_path: Path) -> None:
    x, y = blobs()
    relaxed = symlearn.wrap(Custom(), x[:1])
    result = symlearn.fit(relaxed, (x, y), QUICK)
    result.save(tmp_path / "run")
    with pytest.raises(ValueError, match="pass a relaxed network"):
        symlearn.load(tmp_path / "run")
    again = symlearn.load(tmp_path / "run", relaxed)
    assert torch.equal(again.predict_proba(x), result.predict_proba(x))
    with pytest.raises(ValueError, match="relaxed layers"):
        symlearn.load(tmp_path / "run", tiny_relaxed())


def test_damaged_and_foreign_files_are_told(tmp_path: Path) -> None:
    x, y = blobs()
    result = symlearn.fit(tiny_relaxed(), (x, y), QUICK)

    def fresh(name: str) -> Path:
        result.save(tmp_path / name)
        return tmp_path / name

    with pytest.raises(FileNotFoundError, match="not a saved result"):
        symlearn.load(tmp_path / "nowhere")
    run = fresh("cut")
    data = (run / "tensors.safetensors").read_bytes()
    (run / "tensors.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged or foreign"):
        symlearn.load(run)
    run = fresh("text")
    (run / "result.json").write_text((run / "result.json").read_text()[:100])
    with pytest.raises(ValueError, match="damaged"):
        symlearn.load(run)
    run = fresh("format")
    (run / "result.json").write_text('{"format": "other/1"}')
    with pytest.raises(ValueError, match="not in the format"):
        symlearn.load(run)
    run = fresh("module")
    facts = json.loads((run / "result.json").read_text())
    facts["architecture"]["root"]["children"]["0"] = {"kind": "DataParallel", "arguments": {}}
    (run / "result.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="not a network description"):
        symlearn.load(run)


def test_descriptions_cover_common_modules() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, (3, 1), padding="same", bias=False),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Sequential(nn.GroupNorm(2, 4), nn.GELU(), nn.AvgPool2d(2), nn.LeakyReLU(0.2)),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4, 2),
    ).eval()
    description = architecture.describe(net)
    assert description is not None
    built = architecture.build(json.loads(json.dumps(description)))
    built.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(built.eval()(x), net(x))
    assert architecture.describe(Custom()) is None


@pytest.mark.core
@pytest.mark.parametrize("boundary", ["keep", "circular", Circular("polyphase")], ids=str)
@pytest.mark.parametrize("paths", [("conv", "ffc"), ("ffc", "conv"), ("conv", "fc"), ("conv",)])
def test_collapse_keeps_the_function(paths: tuple[str, ...], boundary: object) -> None:
    x, _ = blobs(20)
    model = tiny_relaxed(paths=paths, boundary=boundary).eval()
    layer = symlearn.relaxed.relaxed_layers(model)["2"]
    for name, path in layer.named_paths().items():
        path.reset_parameters(torch.Generator().manual_seed(len(name)))
    first = symlearn.relaxed.relaxed_layers(model)["0"]
    for name, path in first.named_paths().items():
        if name != "conv":
            path.switch_off()
    plain = symlearn.collapse(model)
    assert torch.allclose(plain(x), model(x), atol=1e-5)
    assert not symlearn.relaxed.relaxed_layers(plain)
    assert sum(p.numel() for p in plain.parameters()) <= sum(p.numel() for p in model.parameters())
    if boundary == "keep":
        assert type(plain[0]) is nn.Conv2d
        assert torch.equal(symlearn.wrap(plain, x).eval()(x), plain(x))


def test_collapse_of_all_off_and_of_plain_networks() -> None:
    x, _ = blobs(5)
    model = tiny_relaxed().eval()
    for path in symlearn.relaxed.relaxed_layers(model)["2"].named_paths().values():
        path.switch_off()
    assert torch.allclose(symlearn.collapse(model)(x), model(x))
    with pytest.raises(ValueError, match="no relaxed layer"):
        symlearn.collapse(tiny_cnn())


def test_fitted_collapse_is_smaller() -> None:
    x, y = blobs(200)
    result = symlearn.fit(
        tiny_relaxed(boundary="keep"), (x, y), FitConfig(epochs=8, progress=False)
    )
    plain = result.collapse()
    assert torch.allclose(plain(x).softmax(-1), result.predict_proba(x), atol=1e-5)
    if {layer.verdict for layer in result.report} == {"conv"}:
        n = sum(p.numel() for p in plain.parameters())
        assert n == sum(p.numel() for p in tiny_cnn().parameters())

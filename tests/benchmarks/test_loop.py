"""The benchmarks of the loop judge and time what they say."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.fit_overhead import OTHER, Stopwatch
from benchmarks.support.toy import fit_for, is_right, relaxed, right_since
from benchmarks.time_to_verdict import OutOfTime, PlainLayer, TimedBatches, plain, verdicts_of
from symlearn import FitConfig
from symlearn.datasets import ImageSet
from symlearn.relaxed import relaxed_layers

STRICT = {"0": "conv", "2": "conv"}
MIXED = {"0": "conv", "2": "conv+ffc"}
FREE = {"0": "conv+ffc", "2": "ffc"}


@pytest.fixture
def images() -> ImageSet:
    g = torch.Generator().manual_seed(0)
    return ImageSet(torch.randn(40, 1, 16, 16, generator=g), torch.arange(40) % 4, 4, "noise")


@pytest.mark.core
def test_right_is_what_the_task_asks_for() -> None:
    assert [is_right("digit", v) for v in (STRICT, MIXED, FREE, {})] == [True, False, False, False]
    assert [is_right("quadrant", v) for v in (STRICT, MIXED, FREE)] == [False, True, False]
    assert not is_right("digit", {"0": "undecided"})


@pytest.mark.core
def test_right_since_is_the_start_of_the_last_run_of_right_verdicts() -> None:
    assert right_since("digit", []) is None
    assert right_since("digit", [(1.0, STRICT), (2.0, MIXED)]) is None
    assert right_since("digit", [(1.0, STRICT), (2.0, MIXED), (3.0, STRICT), (4.0, STRICT)]) == 3.0


@pytest.mark.core
def test_a_fit_out_of_time_has_no_final_verdict(images: ImageSet) -> None:
    settings = {"burn_in": 0.0, "anneal": 0.0, "evidence_every": 1, "grow": False}
    config = FitConfig(epochs=3, progress=False, **settings)  # type: ignore[arg-type]
    _, steps, _ = fit_for(relaxed(images, 0), images, config, float("inf"))
    assert len(steps) == 4
    _, steps, _ = fit_for(relaxed(images, 0), images, config, 0.0)
    assert len(steps) == 1


@pytest.mark.core
def test_time_belongs_to_the_phase_or_else_to_the_innermost_part() -> None:
    watch = Stopwatch()

    def busy() -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    inner = watch.timed(busy, "weights")
    inner()
    watch.timed(inner, "precisions")()
    busy()  # nobody watches
    with watch.watching():
        watch.timed(inner, "challenges")()
    assert watch.seconds["weights"] == pytest.approx(0.04, abs=0.01)
    assert watch.seconds["challenges"] == pytest.approx(0.02, abs=0.01)
    assert watch.seconds["precisions"] < 0.01
    assert watch.seconds[OTHER] < 0.01


@pytest.mark.core
def test_plain_layer_computes_the_paths(images: ImageSet) -> None:
    model = relaxed(images, 0, init="fresh")
    layer = relaxed_layers(model)["0"]
    conv, ffc = layer.path("conv"), layer.path("ffc")
    padded = nn.functional.pad(images.x, (1, 1, 1, 1), mode="circular")
    wanted = nn.functional.conv2d(padded, conv.tested(), stride=2) + ffc(images.x)
    assert torch.allclose(PlainLayer(layer)(images.x), wanted, atol=1e-5)
    assert plain(model)(images.x).shape == model(images.x).shape


@pytest.mark.core
def test_batches_end_when_their_time_is_over(images: ImageSet) -> None:
    batches = TimedBatches(images.x, images.y, 16)
    assert len(list(batches)) == 3
    batches.until = 0.0
    with pytest.raises(OutOfTime):
        list(batches)


@pytest.mark.core
def test_verdict_of_a_peer_comes_from_effective_parameters(images: ImageSet) -> None:
    net = plain(relaxed(images, 0, init="fresh"))
    names = [name for name, _ in net.named_parameters()]

    def fitted(ffc: float) -> SimpleNamespace:
        ones = {name: torch.ones(p.numel()) for name, p in net.named_parameters()}
        values = [[ffc * v if ".ffc." in name else v] for name, v in ones.items()]
        return SimpleNamespace(
            H=SimpleNamespace(eigenvalues=values), prior_precision=torch.ones(len(names))
        )

    assert set(verdicts_of(net, fitted(0.0)).values()) == {"conv"}
    assert set(verdicts_of(net, fitted(1.0)).values()) == {"conv+ffc"}
    assert set(verdicts_of(net, fitted(float("nan"))).values()) == {"undecided"}
    assert list(verdicts_of(net, fitted(1.0))) == ["0", "2", "4", "6"]

"""The whole way from a CNN to its report, with torch and no extra."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest
import torch
from torch import nn

import symlearn
from tests.conftest import EXTRAS, need

pytestmark = pytest.mark.core


def test_packages_import() -> None:
    for package in ("symlearn", "curvature", "priors"):
        assert importlib.import_module(package).__doc__, f"{package} says nothing about itself"


def test_wrap_fit_report() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 1, 6, 6, generator=generator)
    y = (x.mean(dim=(1, 2, 3)) > 0).long()
    cnn = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 2),
    )

    relaxed = symlearn.wrap(cnn, x[:1], paths=("conv", "ffc"))
    torch.testing.assert_close(relaxed(x), cnn(x))

    result = symlearn.fit(relaxed, (x, y), symlearn.FitConfig(epochs=2, seed=0))
    (layer,) = result.report.layers
    assert set(layer.paths) == {"conv", "ffc"}
    assert torch.isfinite(torch.as_tensor(result.log_evidence))
    assert layer.name in result.report.to_markdown()


@pytest.mark.core_only
@pytest.mark.parametrize("name", sorted(EXTRAS))
def test_no_extra_is_here(name: str) -> None:
    assert name not in sys.modules
    assert importlib.util.find_spec(name) is None


def test_need_skips_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYMLEARN_REQUIRE_EXTRAS", raising=False)
    monkeypatch.setitem(EXTRAS, "no_such_module", "laplace")
    with pytest.raises(pytest.skip.Exception, match="extra 'laplace'"):
        need("no_such_module")


def test_need_fails_where_extras_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMLEARN_REQUIRE_EXTRAS", "1")
    monkeypatch.setitem(EXTRAS, "no_such_module", "laplace")
    with pytest.raises(ModuleNotFoundError):
        need("no_such_module")


def test_need_refuses_what_no_extra_brings() -> None:
    with pytest.raises(ValueError, match="no extra brings 'torchvison'"):
        need("torchvison.models")

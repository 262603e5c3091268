"""Data from which nothing can be learned: the fit ends, and its report has no NaN and no boast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import symlearn
from symlearn import AuditConfig, FitConfig, FitResult, PathStructure
from symlearn.relaxed import relaxed_layers
from tests.fit.problems import blobs, tiny_cnn, tiny_relaxed

pytestmark = pytest.mark.core

N = 16
SHORT = FitConfig(
    epochs=3, burn_in=0.3, anneal=0.3, evidence_every=1, evidence_pause=1, grow_every=1,
    challenge_epochs=1, off_after=2, curvature_samples=N, report_samples=N, report_draws=1,
    progress=False,
)  # fmt: skip
X, Y = blobs(N)


def assert_sane(result: FitResult) -> None:
    """Check that a result holds no NaN and claims nothing impossible.

    Raises:
        AssertionError: If it does.
    """
    report = result.report
    assert math.isfinite(report.log_evidence), report.log_evidence
    for layer in report:
        assert layer.verdict, layer.name
        for name, path in layer.paths.items():
            _check_path(path, f"{layer.name}.{name}")
    for name, path in report.heads.items():
        _check_path(dataclasses.replace(path, output_share=0.0), name)
    assert all(bool(torch.isfinite(p).all()) for p in result.model.parameters())
    assert bool(((result.prior.precision > 0) & torch.isfinite(result.prior.precision)).all())


def _check_path(path: PathStructure, name: str) -> None:
    numbers = dataclasses.asdict(path)
    delta = numbers.pop("prior_precision")
    assert delta > 0, (name, delta)
    assert math.isfinite(delta) or not path.on, name
    for what, value in numbers.items():
        assert not isinstance(value, float) or math.isfinite(value), (name, what, value)
    assert -1e-6 <= path.effective_params <= path.n_params * (1 + 1e-6), name


def dead(net: nn.Module) -> nn.Module:
    """The network with a first layer whose rectifiers never fire."""
    bias = relaxed_layers(net)["0"].bias
    assert bias is not None
    nn.init.constant_(bias, -1e3)
    return net


def silent(net: nn.Module) -> nn.Module:
    """The network with a head of zeros, which fits targets of zero exactly."""
    nn.init.zeros_(net[-1].weight)  # type: ignore[index]
    nn.init.zeros_(net[-1].bias)  # type: ignore[index]
    return net


# name -> (network, images, targets, likelihood)
HOPELESS: dict[str, tuple[Callable[[], Any], Tensor, Tensor, str]] = {
    "random labels": (tiny_relaxed, X, Y[torch.randperm(N)], "categorical"),
    "one sample many times": (tiny_relaxed, X[:1].expand(N, -1, -1, -1), Y * 0, "categorical"),
    "constant images": (tiny_relaxed, torch.ones_like(X), Y, "categorical"),
    "black images": (tiny_relaxed, torch.zeros_like(X), Y, "categorical"),
    "faint images": (tiny_relaxed, 1e-20 * X, Y, "categorical"),
    "bright images": (tiny_relaxed, 1e3 * X, Y, "categorical"),
    "a class never seen": (lambda: tiny_relaxed(5), X, Y, "categorical"),
    "one class": (tiny_relaxed, X, Y * 0, "categorical"),
    "one sample": (tiny_relaxed, X[:1], Y[:1], "categorical"),
    "a dead network": (lambda: dead(tiny_relaxed()), X, Y, "categorical"),
    "a network of one class": (lambda: tiny_relaxed(1), X, Y * 0, "categorical"),
    "constant targets": (lambda: tiny_relaxed(1), X, torch.full((N,), 3.0), "gaussian"),
    "targets fitted exactly": (
        lambda: silent(tiny_relaxed(1)), torch.zeros_like(X), torch.zeros(N), "gaussian",
    ),
    "bits that are all one": (lambda: tiny_relaxed(1), X, torch.ones(N), "bernoulli"),
}  # fmt: skip
# no path can explain anything, as nothing differs between the samples or reaches the output
NOTHING_TO_SAY = ("black images", "a dead network", "a network of one class")


@pytest.mark.parametrize("name", HOPELESS)
def test_a_hopeless_fit_ends_with_a_sane_report(name: str) -> None:
    build, x, y, likelihood = HOPELESS[name]
    result = symlearn.fit(build(), (x, y), dataclasses.replace(SHORT, likelihood=likelihood))
    assert_sane(result)
    if name in NOTHING_TO_SAY:
        assert result.report["0"].verdict in ("off", "undecided")


@pytest.mark.parametrize(
    ("gain", "effective", "verdict"),
    [(0.0, 0.01, "off"), (0.0, 0.6, "conv"), (0.1, 0.01, "conv"), (math.nan, 0.01, "conv")],
)
def test_a_last_path_that_has_vanished_is_off(gain: float, effective: float, verdict: str) -> None:
    path = PathStructure(
        prior_precision=1e6, weight_norm_sq=1e-9, n_params=36, effective_params=effective,
        normalised_effective_params=effective / 36, relative_effective_params=1.0,
        output_share=1.0, evidence_gain=gain, on=True,
    )  # fmt: skip
    assert symlearn.LayerStructure.of("0", {"conv": path}).verdict == verdict


@pytest.mark.slow
@pytest.mark.parametrize("images", ["as they are", "constant"])
def test_random_labels_are_explained_by_nothing(images: str) -> None:
    x, y = blobs(150)
    x = torch.ones_like(x) if images == "constant" else x
    result = symlearn.fit(tiny_relaxed(), (x, y[torch.randperm(150)]), FitConfig(progress=False))
    assert_sane(result)
    assert {layer.verdict for layer in result.report} <= {"off", "undecided"}


def test_what_is_not_sane_is_seen() -> None:
    result = symlearn.fit(tiny_relaxed(), (X[:4], Y[:4]), dataclasses.replace(SHORT, epochs=1))
    assert_sane(result)
    layer = result.report.layers[0]
    broken = dataclasses.replace(layer.paths["conv"], effective_params=math.nan)
    with pytest.raises(AssertionError, match="effective_params"):
        _check_path(broken, "conv")
    layers = (dataclasses.replace(layer, paths={"conv": broken}), *result.report.layers[1:])
    with pytest.raises(AssertionError):
        assert_sane(dataclasses.replace(
            result, report=dataclasses.replace(result.report, layers=layers)
        ))  # fmt: skip


SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=5)
KINDS = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]
)
BAD = st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1e38, -7.0])
FEW_EXAMPLES = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def arrays(draw: st.DrawFn, shapes: Any = SHAPES) -> Tensor:
    """An array of any shape and kind, all of whose numbers are one of a few, or random."""
    shape, kind, value = draw(shapes), draw(KINDS), draw(BAD)
    spread = draw(st.sampled_from([0.0, 1.0]))
    numbers = spread * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + value
    return numbers.nan_to_num(0, 9, -9).to(kind) if not kind.is_floating_point else numbers.to(kind)


def refused_or(act: Callable[[], Any]) -> Any:
    """The result of a call, or None if it is refused in words of the package.

    Raises:
        AssertionError: If it fails in another way.
    """
    try:
        found = act()
    except (ValueError, TypeError, symlearn.NonFiniteLossError) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        assert trace is not None
        source = trace.tb_frame.f_code.co_filename
        assert any(f"/{part}/" in source for part in ("symlearn", "curvature", "priors")), source
        assert "site-packages" not in source, source
        event("refused")
        return None
    event("accepted")
    return found


FITTING = st.tuples(st.integers(0, 3), st.just(1), st.just(8), st.just(8))
IMAGES = st.one_of(FITTING, SHAPES)
LABELS = st.one_of(st.tuples(st.integers(0, 3)), SHAPES)


@FEW_EXAMPLES
@given(x=arrays(IMAGES), y=arrays(LABELS), likelihood=st.sampled_from(["categorical", "gaussian"]))
def test_fit_learns_or_refuses(x: Tensor, y: Tensor, likelihood: str) -> None:
    config = dataclasses.replace(SHORT, epochs=1, likelihood=likelihood, challenge_epochs=0)
    net = tiny_relaxed(2 if likelihood == "categorical" else 1, paths="conv", boundary="keep")
    result = refused_or(lambda: symlearn.fit(net, (x, y), config))
    if result is not None:
        assert_sane(result)


@FEW_EXAMPLES
@given(x=arrays(IMAGES))
def test_wrap_keeps_the_function_or_refuses(x: Tensor) -> None:
    net = tiny_cnn().eval()
    relaxed = refused_or(lambda: symlearn.wrap(net, x))
    if relaxed is not None:
        torch.testing.assert_close(relaxed(x), net(x), equal_nan=True)


@FEW_EXAMPLES
@given(x=arrays(IMAGES))
def test_audit_measures_or_refuses(x: Tensor) -> None:
    config = AuditConfig(progress=False, layers=False)
    found = refused_or(lambda: symlearn.audit(tiny_cnn(), x, "translation_x", config))
    if found is not None:
        assert all(math.isfinite(lie.mean_square) for lie in found.lie)


@FEW_EXAMPLES
@given(x=arrays(IMAGES))
def test_predictions_are_probabilities_or_refused(x: Tensor) -> None:
    result = fitted()
    probs = refused_or(lambda: result.predict_proba(x))
    if probs is not None:
        torch.testing.assert_close(probs.sum(1), torch.ones(len(x)))


@cache
def fitted() -> FitResult:
    """A result, made once."""
    return symlearn.fit(tiny_relaxed(), (X, Y), dataclasses.replace(SHORT, epochs=1))

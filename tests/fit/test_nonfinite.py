"""Numbers that are not finite stop a fit; the last good checkpoint is there to go on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import FitConfig, NonFiniteLossError
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core
X, Y = blobs(20)
QUICK = FitConfig(
    epochs=4, objective="map", grow=False, early_start=False, challenge_epochs=0, report_draws=1,
    curvature_samples=20, report_samples=20, progress=False,
)  # fmt: skip


class Loader:
    """Batches of ten, of which the second is too bright to compute with from some pass on.

    Args:
        bad_from: The first pass over the data with bad batches.
    """

    def __init__(self, bad_from: int) -> None:
        self.bad_from, self.passes = bad_from, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        yield X[:10], Y[:10]
        bright = 3.3e38 / float(X.abs().max()) if self.passes >= self.bad_from else 1.0
        signs = 1 - 2 * (torch.arange(10) % 2)  # whatever the filters, one sign overflows
        yield X[10:] * bright * signs.reshape(-1, 1, 1, 1), Y[10:]


def steep() -> nn.Module:
    """A network whose first layer overflows on bright images."""
    net = tiny_relaxed(paths="conv")
    with torch.no_grad():
        net.get_parameter("0.paths.conv.conv.weight").mul_(100)
    return net


def passes_before(epoch: int) -> int:
    """Passes over the data before an epoch of weight steps."""
    good = Loader(99)
    counts: list[int] = []
    symlearn.fit(steep(), good, QUICK,
                 callbacks=[lambda run: counts.append(good.passes)])  # fmt: skip
    return counts[epoch - 2]


def test_the_batch_the_layer_and_the_checkpoint_are_named(tmp_path: Path) -> None:
    loader = Loader(passes_before(3) + 1)
    with pytest.raises(NonFiniteLossError) as error:
        symlearn.fit(steep(), loader, QUICK, checkpoint_dir=tmp_path)
    text = str(error.value)
    assert "in batch 1 (first in layer " in text
    assert "'0.paths.conv" in text
    assert f"the last good checkpoint is in {tmp_path}" in text
    assert sorted(path.name[:14] for path in tmp_path.iterdir())[-1] == "epoch-00000002"
    resumed = symlearn.fit(steep(), Loader(99), QUICK, resume=tmp_path)
    assert [record.epoch for record in resumed.history] == [1, 2, 3, 4]
    whole = symlearn.fit(steep(), Loader(99), QUICK)
    assert resumed.log_evidence == whole.log_evidence


def test_weights_that_overflow_in_the_last_step_are_not_saved(tmp_path: Path) -> None:
    config = FitConfig(
        **{**QUICK.to_dict(), "optimiser": "sgd", "learning_rate": 1e38, "precision": 1e4}
    )
    with pytest.raises(NonFiniteLossError, match="weights became NaN or infinite in batch 0"):
        symlearn.fit(tiny_relaxed(paths="conv"), (X, Y), config, checkpoint_dir=tmp_path)
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["epoch-00000000"]


def test_bad_validation_data_are_told_before_the_first_epoch() -> None:
    epochs: list[int] = []
    with pytest.raises(ValueError, match="class indices"):
        symlearn.fit(
            tiny_relaxed(), (X, Y), QUICK, validation=(X, Y + 9),
            callbacks=[lambda run: epochs.append(run.epoch)],
        )  # fmt: skip
    assert epochs == []


def test_looking_at_validation_data_changes_no_number() -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, Y), batch_size=7, shuffle=True
    )
    with_it = symlearn.fit(tiny_relaxed(), (X, Y), QUICK, validation=loader)
    without = symlearn.fit(tiny_relaxed(), (X, Y), QUICK)
    assert with_it.log_evidence == without.log_evidence

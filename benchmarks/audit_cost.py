"""Claim: a layerwise audit costs one backward pass per probe, for all layers at once.

ResNet-18 of torchvision with random weights and 1000 outputs, on random images of 224x224. An
attribution is one forward pass with places marked in the graph, and one backward pass per probe for
all modules, transformations and images together. The unit is one training pass (forward and
backward) of one image. Probes are forced to the given number; "chosen" is what the audit itself
takes for a standard error of 10% of each contribution.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.support import harness
from benchmarks.support.harness import Cell, Missing, Report, Run, peer
from symlearn.audit import Probing, as_transformations, attribute, measure

UNIT = "training pass"
PROBES = (4, 8, 16, 32)
SEVERAL = ("translation_x", "translation_y", "rotation", "scaling", "shear")
_NEVER = 1e-12  # a tolerance that no number of probes reaches


def network() -> nn.Module | Missing:
    """ResNet-18, in eval mode."""

    def build() -> nn.Module:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        net: nn.Module = resnet18().eval()
        return net

    return peer(["torchvision"], build)


def training_pass(net: nn.Module, x: Tensor) -> None:
    """Forward, and backward to all weights."""
    net.zero_grad(set_to_none=True)
    net(x).square().sum().backward()


def contenders(net: nn.Module, x: Tensor) -> dict[str, Run | Missing]:
    """The passes to be timed by name."""
    one, several = as_transformations("rotation"), as_transformations(SEVERAL)
    found: dict[str, Run | Missing] = {
        UNIT: partial(training_pass, net, x),
        "Lie derivative": partial(measure, net, x, one[0]),
    }
    for n in PROBES:
        probing = Probing(_NEVER, most=n)
        found[f"layers, {n} probes"] = partial(attribute, net, x, one, probing=probing)
    probing = Probing(_NEVER, most=PROBES[-1])
    found[f"layers, {PROBES[-1]} probes, {len(SEVERAL)} transformations"] = partial(
        attribute, net, x, several, probing=probing
    )
    return found


def main() -> None:
    """Measure and write the results."""
    options = harness.options(__doc__, images={"type": int, "default": 2, "help": "images"})
    net = network()
    report = Report.described("audit_cost", __doc__)
    if isinstance(net, Missing):
        report.table("Cost of an audit", ["", "s"], [["ResNet-18", net]])
        report.write(options.out)
        return
    x = torch.randn(options.images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seconds = harness.present(harness.measure(contenders(net, x), options.reps))
    rows: list[list[Cell]] = [
        [name, total / len(x), total / seconds[UNIT]] for name, total in seconds.items()
    ]
    report.table("CPU seconds per image, 1 thread", ["", "s per image", "training passes"], rows)
    first, last = (seconds[f"layers, {n} probes"] for n in (PROBES[0], PROBES[-1]))
    slope = (last - first) / (PROBES[-1] - PROBES[0])
    (chosen,) = attribute(net, x, as_transformations("rotation"))
    growth: list[list[Cell]] = [
        ["s per image and probe", slope / len(x)],
        ["the same, in training passes", slope / seconds[UNIT]],
        ["s per image without probes", (first - PROBES[0] * slope) / len(x)],
        [f"probes chosen, {len(x)} images", chosen.n_probes],
    ]
    report.table("Growth with probes", ["", "measured"], growth)
    report.goal("one more probe / training pass", slope / seconds[UNIT], 1.0)
    several = seconds[f"layers, {PROBES[-1]} probes, {len(SEVERAL)} transformations"]
    report.goal(f"{len(SEVERAL)} transformations / one", several / last, 1.5)
    report.write(options.out)


if __name__ == "__main__":
    main()

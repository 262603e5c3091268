"""Networks of torchvision, of timm and of our own, and what must hold for them after `wrap`."""

from __future__ import annotations

import copy
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import symlearn
from symlearn.relaxed import relaxed_layers

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
"""Largest difference of outputs, relative to their scale."""
CLASSES = 7
_LATE_WEIGHTS = 10_000_000


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        library: "torchvision", "timm" or "own".
        build: Makes it with random weights.
        shape: Shape of one input, [C, *size].
        leave_out: Convolutions that `wrap` refuses, by name.
        trap: What is unusual about it.
    """

    library: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    leave_out: tuple[str, ...] = ()
    trap: str = ""

    def network(self) -> nn.Module:
        """The network, with weights from a fixed seed.

        Constant parameters are made random too: many residual branches start with a scale of zero,
        and whatever is done to them has no effect then.
        """
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about their own defaults
            net = self.build()
        for p in net.parameters():
            if bool((p == p.flatten()[0]).all()):
                nn.init.normal_(p, float(p.detach().flatten()[0]), 0.3)
        return net

    def images(self, count: int = 2) -> Tensor:
        """Random images in float32."""
        return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(0))

    def layers(self, name: str, module: nn.Module) -> bool:
        """Selects all convolutions but those to be left out; for ``wrap(layers=...)``."""
        return name not in self.leave_out


def _library(library: str, name: str, **options: Any) -> nn.Module:
    """A network of torchvision or timm by name; the library is an extra."""
    if library == "timm":
        model: nn.Module = importlib.import_module("timm").create_model(
            name, pretrained=False, num_classes=CLASSES, **options
        )
    else:
        models = importlib.import_module("torchvision.models")
        model = getattr(models, name)(num_classes=CLASSES, **options)
    return model


class LeNet(nn.Sequential):
    """Two convolutions with pools, and a large head."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5),
            nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 84), nn.Linear(84, CLASSES),
        )  # fmt: skip


class UNet(nn.Module):
    """Down, up by transposed convolutions, and concatenated skips; its output is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(self.block(*io) for io in ((3, 8), (8, 16), (16, 32)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in (16, 8))
        self.merge = nn.ModuleList(self.block(2 * c, c) for c in (16, 8))
        self.head = nn.Conv2d(8, 2, 1)

    @staticmethod
    def block(c_in: int, c_out: int) -> nn.Sequential:
        """Convolution, normalisation, activation."""
        return nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1), nn.InstanceNorm2d(c_out), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, H, W] to [N, 2, H, W]."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x if not skips else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for skip, up, merge in zip(skips[-2::-1], self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        out: Tensor = self.head(x)
        return out


class Dilated(nn.Sequential):
    """Dilated, grouped, depthwise and strided convolutions, and a dropout of channels."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=4, dilation=4, groups=8, padding_mode="circular"),
            nn.Dropout2d(0.5), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(16, CLASSES),
        )  # fmt: skip


class Signal(nn.Sequential):
    """A network on 1-D signals."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 8, 9, stride=2, padding=4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 16, 5, padding=2, groups=2), nn.ReLU(), nn.Dropout(0.3),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, CLASSES),
        )  # fmt: skip


def _named(library: str, *names: str) -> dict[str, Entry]:
    prefix = "timm/" if library == "timm" else ""
    return {prefix + name: Entry(library, partial(_library, library, name)) for name in names}


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return partial(_library, "torchvision", name, **options)


ZOO: dict[str, Entry] = {
    "lenet": Entry("own", LeNet, (1, 28, 28)),
    "unet": Entry("own", UNet, (3, 32, 32), trap="transposed convolutions"),
    "dilated": Entry("own", Dilated, (3, 32, 32), trap="dilation, groups, circular padding"),
    "signal": Entry("own", Signal, (2, 64), trap="Conv1d"),
    **_named(
        "torchvision",
        *("vgg11", "vgg11_bn", "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d"),
        *("densenet121", "mobilenet_v2", "mobilenet_v3_small"),
        *("efficientnet_b0", "convnext_tiny", "regnet_y_400mf", "squeezenet1_1"),
        *("shufflenet_v2_x1_0", "mnasnet0_5"),
    ),
    "resnet18 with GroupNorm": Entry(
        "torchvision", _torchvision("resnet18", norm_layer=partial(nn.GroupNorm, 8))
    ),
    "googlenet": Entry(
        "torchvision",
        _torchvision("googlenet", init_weights=False),
        trap="auxiliary heads that run in train mode only",
    ),
    "inception_v3": Entry(
        "torchvision", _torchvision("inception_v3", init_weights=False, aux_logits=False),
        (3, 96, 96),
    ),
    "densenet121 with checkpoints": Entry(
        "torchvision",
        _torchvision("densenet121", memory_efficient=True),
        trap="torch.utils.checkpoint",
    ),
    **_named(
        "timm",
        *("resnetv2_50", "seresnet18", "skresnet18", "res2net50_26w_4s", "resnest14d", "gernet_s"),
        *("cspresnet50", "darknet53", "dla34", "hrnet_w18_small", "selecsls42b", "vovnet39a"),
        *("ese_vovnet19b_dw", "hgnet_tiny", "xception41", "regnetx_002", "rexnet_100", "lcnet_050"),
        *("mobilenetv3_small_100", "ghostnet_100", "mixnet_s", "repvgg_a0", "starnet_s1"),
        *("fastvit_t8", "convnextv2_atto", "inception_next_atto", "poolformer_s12"),
        *("mobileone_s0", "mobilevit_xxs"),
    ),
    "timm/tf_efficientnet_b0": Entry(
        "timm",
        partial(_library, "timm", "tf_efficientnet_b0"),
        trap="some convolutions are of a subclass",
    ),
    "timm/dm_nfnet_f0": Entry(
        "timm", partial(_library, "timm", "dm_nfnet_f0"), trap="most are of a subclass"
    ),
    "timm/edgenext_xx_small": Entry(
        "timm",
        partial(_library, "timm", "edgenext_xx_small"),
        leave_out=("stages.1.blocks.1.pos_embd.token_projection",),
        trap="reads the weight of a convolution",
    ),
    "timm/resnetv2_50x1_bit": Entry(
        "timm", partial(_library, "timm", "resnetv2_50x1_bit"), trap="nearly all are of a subclass"
    ),
}  # fmt: skip


def tensors(output: Any) -> list[Tensor]:
    """All tensors of a network's output, whatever holds them."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output
    return [tensor for part in parts if part is not None for tensor in tensors(part)]


def run(model: nn.Module, x: Tensor, seed: int = 1) -> list[Tensor]:
    """Outputs, with the random numbers of a seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return tensors(model(x))


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference relative to the scale of each tensor; NaN where one is not finite.

    Raises:
        ValueError: If numbers or shapes of tensors differ, or all tensors are constant.
    """
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        raise ValueError("the outputs differ in number or shape")
    if not any(bool((t != t.flatten()[:1]).any()) for t in theirs if t.numel()):
        raise ValueError("the outputs are constant, which shows nothing")
    worst = torch.zeros((), dtype=torch.float64)
    for a, b in zip(ours, theirs, strict=True):
        if b.numel():
            error = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)
            worst = torch.maximum(worst, error)
    return float(worst)


def differences(net: nn.Module, relaxed: nn.Module, x: Tensor) -> dict[str, float]:
    """Differences of outputs in eval and train mode, and of running statistics after it.

    Both networks are in eval mode afterwards; their running statistics have moved.
    """
    found = {}
    for mode in ("eval", "train"):
        for model in (net, relaxed):
            model.train(mode == "train")
        found[mode] = difference(run(relaxed, x), run(net, x))
    mine, theirs = (
        {k: v for k, v in model.state_dict().items() if k.rpartition(".")[2].startswith("running")}
        for model in (relaxed, net)
    )
    if theirs:
        found["statistics"] = difference([mine[name] for name in theirs], list(theirs.values()))
    net.eval()
    relaxed.eval()
    return found


def late_layers(entry: Entry, net: nn.Module, x: Tensor) -> list[str]:
    """Convolutions of the last stage in which a factored fully-connected path stays small."""
    rows = symlearn.plan(net, x, layers=symlearn.last_stages(1)).relaxed
    small = [row.layer for row in rows if row.params_after <= _LATE_WEIGHTS]
    return [name for name in small if name not in entry.leave_out]


def survives_saving(relaxed: nn.Module, fresh: nn.Module, x: Tensor) -> bool:
    """Whether saved weights, loaded into a second relaxed network, give the same outputs."""
    file = io.BytesIO()
    torch.save(relaxed.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    twin = copy.deepcopy(relaxed)
    expected = run(relaxed.eval(), x)
    return difference(run(fresh.eval(), x), expected) == 0 == difference(run(twin, x), expected)


def shaken(relaxed: nn.Module) -> nn.Module:
    """The network with random weights in all relaxed layers."""
    generator = torch.Generator().manual_seed(2)
    for layer in relaxed_layers(relaxed).values():
        layer.reset_parameters(generator)
    return relaxed


@dataclass
class Outcome:
    """What was found for one network.

    Attributes:
        convs: Number of its convolutions, of whatever class.
        relaxed: How many were relaxed with the path "conv".
        late: How many were relaxed with "conv" and "ffc".
        worst: Largest difference relative to the tolerance; 1 is just tolerated.
        problems: What does not hold; empty if all does.
        notes: Convolutions left alone or refused, with the reason.
    """

    convs: int = 0
    relaxed: int = 0
    late: int = 0
    worst: float = 0.0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def examine(entry: Entry) -> Outcome:
    """Wrap a network in all its layers and in its late ones, and compare it with the original."""
    outcome, net, x = Outcome(), entry.network(), entry.images()
    plan = symlearn.plan(net.eval(), x, paths="conv", layers=entry.layers)
    outcome.convs = len(plan.rows)
    outcome.notes += _reasons(plan)
    outcome.notes += [f"left out: {name}" for name in entry.leave_out]
    if not plan.relaxed:
        return outcome
    wrap = partial(symlearn.wrap, memory_limit_gib=1000.0)
    late = late_layers(entry, net, x)
    outcome.late = len(late)
    wraps: dict[str, Callable[..., nn.Module]] = {
        "conv": partial(wrap, paths="conv", layers=entry.layers),
        **({"conv+ffc": partial(wrap, layers=late)} if late else {}),
    }
    for dtype, tolerance in TOLERANCE.items():
        for paths, relax in wraps.items():
            original, images = copy.deepcopy(net).to(dtype), x.to(dtype)
            relaxed = relax(original, images)
            if paths == "conv":
                outcome.relaxed = len(relaxed_layers(relaxed))
            for where, found in differences(original, relaxed, images).items():
                outcome.worst = max(outcome.worst, found / tolerance)
                if not found <= tolerance:
                    outcome.problems.append(f"{paths}, {where}, {dtype}: {found:.1e}")
            if dtype == torch.float32:
                before = run(relaxed, images)
                if not survives_saving(shaken(relaxed), relax(original, images), images):
                    outcome.problems.append(f"{paths}: saved weights give other outputs")
                if not difference(run(relaxed, images), before) > tolerance:
                    outcome.problems.append(f"{paths}: weights of relaxed layers have no effect")
    if outcome.relaxed != len(plan.relaxed):
        outcome.problems.append(f"{len(plan.relaxed)} were planned")
    return outcome


def _reasons(plan: symlearn.WrapPlan) -> Iterator[str]:
    """Reasons of the rows that are not relaxed, with how many share each."""
    reasons = [row.reason for row in (*plan.left_alone, *plan.refused)]
    for reason in dict.fromkeys(reasons):
        if reason != "not selected":
            yield f"{reasons.count(reason)}: {reason}"

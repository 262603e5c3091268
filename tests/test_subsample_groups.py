"""Networks lifted to a finite group: exact for every shift and every group element together."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn import Circular, architecture
from symlearn.groups.grid import GridGroup, named
from symlearn.lift import lift
from symlearn.pose import turn_each
from symlearn.relaxed import relaxed_layers
from symlearn.subsample import CircularPool, PhaseReference
from tests.nets import conv, ending
from tests.shifts import all_shifts, maps_of, pose_of, shifted, stress_images

pytestmark = pytest.mark.core
D = torch.float64

NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "strided": (
        lambda: nn.Sequential(
            conv(1, 2, stride=2), nn.ReLU(), conv(2, 3, stride=2), nn.ReLU(),
            *ending(3, nn.AdaptiveMaxPool2d),
        ),
        8,
    ),
    "pooled": (
        lambda: nn.Sequential(
            conv(1, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), conv(2, 3), nn.ReLU(), nn.AvgPool2d(2),
            *ending(3),
        ),
        8,
    ),
    "odd": (
        lambda: nn.Sequential(
            conv(1, 2, stride=3), nn.ReLU(), nn.MaxPool2d(3), conv(2, 3), nn.ReLU(), *ending(3)
        ),
        9,
    ),
}  # fmt: skip


def lifted(name: str, group: str, **options: object) -> tuple[nn.Module, Tensor]:
    """A circular network over a group with a calibrated reference, and stress images."""
    make, size = NETS[name]
    torch.manual_seed(0)
    net = lift(make().double(), group, init="fresh")
    x = torch.randn(2, 1, size, size, dtype=D)
    given = {"paths": ("conv",), "boundary": "circular", **options}
    wrapped = symlearn.wrap(net, x, **given).eval()  # type: ignore[arg-type]
    for reference in references(wrapped):
        reference.calibrate(torch.randn(20, 1, size, size, dtype=D))
    mirrored, stress = x[:1] + x[:1].flip(3), stress_images((size, size))
    return wrapped, torch.cat([x, mirrored, *(stress[n] for n in ("block", "thing twice", "wave"))])


def references(net: nn.Module) -> set[PhaseReference]:
    return {m for m in net.modules() if isinstance(m, PhaseReference)}


def assert_invariant_to_group(net: nn.Module, x: Tensor, group: GridGroup) -> None:
    """Check that the outputs are the same for every element and every shift."""
    shifts = list(all_shifts(tuple(x.shape[2:])))
    with torch.no_grad():
        expected = net(x)
        scale = expected.abs().amax(1)
        for g in range(group.order):
            moved = torch.cat([shifted(group.act(x, g), by) for by in shifts])
            error = (net(moved).reshape(len(shifts), *expected.shape) - expected).abs().amax(2)
            fine = error <= 1e-10 * scale
            assert bool(fine.all()), f"element {g}: shifts and images {(~fine).nonzero()}"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("p4", "strided"),
        ("p4", "pooled"),
        ("p4", "odd"),
        ("vertical", "strided"),
        ("p4m", "pooled"),
    ],
)
def test_outputs_are_invariant_to_the_group_and_all_shifts(group: str, name: str) -> None:
    net, x = lifted(name, group)
    assert net(x).std(0).min() > 1e-5
    assert_invariant_to_group(net, x, named(group))


@pytest.mark.parametrize(("group", "name"), [("p4", "strided"), ("p4m", "pooled"), ("p2", "odd")])
def test_maps_of_moved_images_are_moved_maps(group: str, name: str) -> None:
    """In the frame of each image's pose every map is the same, and over G it turns as such."""
    net, x = lifted(name, group)
    (reference,), acting = references(net), named(group)
    home = canonical_maps(net, reference, x)
    assert len(home) == len(relaxed_layers(net)) + sum(
        isinstance(m, CircularPool) for m in net.modules()
    )
    for g in range(acting.order):
        for by in [(0, 0), (1, 0), (0, 3), (5, 6)]:
            found = canonical_maps(net, reference, shifted(acting.act(x, g), by))
            for layer, before in home.items():
                torch.testing.assert_close(found[layer], before, rtol=0, atol=1e-10)


def canonical_maps(net: nn.Module, reference: PhaseReference, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all layers over the group, turned and shifted back to the canonical frame."""
    pose, group = pose_of(reference, x), reference.group
    assert group is not None
    found = {}
    for name, out in maps_of(net, x).items():
        passed = x.shape[-1] // out.shape[-1]
        back = turn_each(out, group.inverse[pose.element], group, over_group=True)
        pairs = zip(back.split(1), (pose.shift // passed).tolist(), strict=True)
        found[name] = torch.cat([shifted(v, tuple(-i for i in q)) for v, q in pairs])
    return found


def test_still_invariant_after_training_steps() -> None:
    net, x = lifted("strided", "p4", paths=("conv", "gconv"))
    for layer in relaxed_layers(net).values():
        layer.path("conv").switch_off()  # free of the group
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.3)
    start = net(x)
    net.train()
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), torch.arange(len(x)) % 3).backward()
        optimiser.step()
    assert (net.eval()(x) - start).abs().max() > 1e-3
    assert_invariant_to_group(net, x, named("p4"))


def test_symmetric_maps_without_a_group_axis() -> None:
    """Filters with the group's symmetry act on plain maps; the boundary names the group."""
    make, size = NETS["strided"]
    net = make().double()
    group = named("p4m")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            w = module.weight.detach()
            module.weight.data = torch.stack([group.act(w, g) for g in range(8)]).mean(0)
    x = torch.cat([*stress_images((size, size)).values()])
    circular = symlearn.wrap(net, x[:1], paths="conv", boundary=Circular(group="p4m")).eval()
    assert_invariant_to_group(circular, x, group)
    plain = symlearn.wrap(net, x[:1], paths="conv", boundary="circular").eval()
    with pytest.raises(AssertionError, match="element"):
        assert_invariant_to_group(plain, x, group)


def test_gradients_are_those_of_the_canonical_image() -> None:
    """Turning back and forth is a permutation; gradients go through it."""
    net, x = lifted("strided", "p4")
    layer = relaxed_layers(net)[next(iter(relaxed_layers(net)))]
    net(x[:2]).sum().backward()
    expected = layer.path("conv").conv.weight.grad
    net.zero_grad()
    net(shifted(named("p4").act(x[:2], 1), (3, 1))).sum().backward()
    torch.testing.assert_close(layer.path("conv").conv.weight.grad, expected)


def test_descriptions_and_copies_keep_the_group() -> None:
    net = nn.Sequential(conv(1, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), *ending(3)).double()
    x = torch.randn(2, 1, 8, 8, dtype=D)
    wrapped = symlearn.wrap(net, x, boundary=Circular(group="p4")).eval()
    (reference,) = references(wrapped)
    reference.calibrate(torch.randn(9, 1, 8, 8, dtype=D))
    built = architecture.build(json.loads(json.dumps(architecture.describe(wrapped)))).double()
    built.load_state_dict(wrapped.state_dict())
    (again,) = references(built)
    assert again.group == reference.group == named("p4")
    for same in (built.eval(), copy.deepcopy(wrapped)):
        assert torch.equal(same(x), wrapped(x))


def test_descriptions_say_which_maps_are_over_the_group() -> None:
    net, _ = lifted("strided", "p4")
    layers = nn.Sequential(*relaxed_layers(net).values())
    built = architecture.build(json.loads(json.dumps(architecture.describe(layers))))
    found = [layer.align.over_group for layer in relaxed_layers(built).values() if layer.align]
    assert found == [(False, True), (True, True)]


def test_groups_that_do_not_fit_are_refused() -> None:
    for phase in ("centroid", "polyphase"):
        with pytest.raises(ValueError, match="choose phase='template'"):
            Circular(phase, group="p4")
    with pytest.raises(ValueError, match="unknown group 'p5'"):
        Circular(group="p5")
    assert Circular(group="trivial").grid_group is None
    net, size = NETS["strided"][0](), 8
    with pytest.raises(ValueError, match="square"):
        symlearn.wrap(net, torch.zeros(1, 1, size, 4), boundary=Circular(group="p4"))
    over = lift(net, "p4")
    with pytest.raises(ValueError, match="choose phase='template'"):
        symlearn.wrap(over, torch.zeros(1, 1, size, size), boundary=Circular("centroid"))
    with pytest.raises(ValueError, match="lifted to group 'p4', the boundary asks for group 'p2'"):
        symlearn.wrap(over, torch.zeros(1, 1, size, size), boundary=Circular(group="p2"))
    fine = symlearn.wrap(over, torch.zeros(1, 1, size, size), boundary=Circular(group=named("p4")))
    assert {r.group for r in references(fine)} == {named("p4")}


def test_the_check_can_fail() -> None:
    net, x = lifted("strided", "p4")
    first = next(iter(relaxed_layers(net).values()))
    assert first.align is not None
    first.align.over_group = (False, False)
    with pytest.raises(AssertionError, match="element"):
        assert_invariant_to_group(net, x, named("p4"))
    net, x = lifted("strided", "p4")
    with pytest.raises(AssertionError, match="element 0"):
        assert_invariant_to_group(net, x * math.nan, named("p4"))

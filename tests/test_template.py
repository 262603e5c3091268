"""The template rule: the likelihood it maximises, and poses that move with every image."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from symlearn import Circular, template
from symlearn.groups.grid import GridGroup, named
from symlearn.pose import Pose
from symlearn.subsample import PhaseReference
from symlearn.template import Template
from tests.shifts import all_shifts, pose_of, shifted, stress_images

pytestmark = pytest.mark.core
D = torch.float64
SIZES = [(8, 8), (9, 7), (6, 12), (24,), (4, 4, 4)]


def things(n: int, size: tuple[int, ...], channels: int = 1, seed: int = 0) -> Tensor:
    """Images with a thing at about the same place."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, channels, *size, generator=generator, dtype=D)
    grids = torch.meshgrid(*[torch.arange(s, dtype=D) for s in size], indexing="ij")
    bump = sum(((g - s / 3) / s * 6).square() for g, s in zip(grids, size, strict=True))
    return noise * torch.exp(-torch.as_tensor(bump)) + 0.1 * noise.flip(0)


def reference(
    size: tuple[int, ...], channels: int = 1, group: str | None = None, calibrated: bool = True
) -> PhaseReference:
    """A template in eval mode."""
    found = PhaseReference(size, channels, Circular("template", group=group)).eval()
    if calibrated:
        found.calibrate(things(40, size, channels))
    return found


def moved(x: Tensor, group: GridGroup | None, shifts: list[tuple[int, ...]]) -> Tensor:
    """Each image under each group element and shift, [N, moves, C, *size]."""
    turned = [x] if group is None else [group.act(x, g) for g in range(group.order)]
    return torch.stack([shifted(y, by) for y in turned for by in shifts], 1)


def canonical(x: Tensor, pose: Pose, group: GridGroup | None) -> Tensor:
    """Canonical views of images, by loops."""
    out = []
    for v, g, t in zip(x.split(1), pose.element.tolist(), pose.shift.tolist(), strict=True):
        back = v if group is None else group.act(v, int(group.inverse[g]))
        out.append(shifted(back, tuple(-i for i in t)))
    return torch.cat(out)


def assert_poses_move(
    locate: Callable[[Tensor], Pose],
    images: dict[str, Tensor],
    group: GridGroup | None = None,
    shifts: list[tuple[int, ...]] | None = None,
) -> None:
    """Check that all moved versions of an image have one and the same canonical view, exactly."""
    for name, image in images.items():
        size = tuple(image.shape[2:])
        batch = moved(image, group, shifts or list(all_shifts(size)))[0]
        found = canonical(batch, locate(batch), group)
        error = (found - found[:1]).abs().max()
        assert bool(error <= 1e-12), f"{name} has several canonical views"


# ----------------------------------------------------------------- the model


def test_the_score_is_the_likelihood_of_probabilistic_principal_components() -> None:
    """Against scikit-learn, at every shift."""
    size, x = (6, 5), things(400, (6, 5), 2)
    rule = Template(size, 2, dither=0)
    rule.calibrate(x)
    centred = x - x.mean((2, 3), keepdim=True)
    oracle = PCA(len(rule.squared), svd_solver="full").fit(centred.flatten(1).numpy())
    shifts = list(all_shifts(size))
    images = centred[:7]
    back = torch.stack([shifted(images, tuple(-t for t in by)) for by in shifts], 1)
    expected = torch.tensor(oracle.score_samples(back.flatten(0, 1).flatten(1).numpy()))
    expected = expected.reshape(7, len(shifts)) * oracle.noise_variance_
    found, _ = rule._score(images)
    difference = found.flatten(1) - expected
    spread = expected.std(1)
    assert bool((difference.std(1) <= 1e-4 * spread).all())


def test_training_images_are_where_they_are() -> None:
    x = things(300, (16, 16))
    rule = Template((16, 16), 1, dither=0)
    rule.calibrate(x)
    origin = 16 // 3  # away from the multiples of strides
    away = rule.locate(shifted(x, (3, 7)).unsqueeze(1)).shift - torch.tensor([3, 7]) - origin
    near = ((away + 8) % 16 - 8).abs().amax(1) <= 1
    assert near.double().mean() > 0.9


def test_large_images_are_told_apart_by_their_coarse_detail() -> None:
    """Fine detail is left out of the model, not of the shifts."""
    size = (48, 33)
    found = reference(size)
    assert tuple(found.rule.linear.shape) == (1, 31, 31)
    image = things(1, size, seed=3)
    shifts = [(0, 0), (1, 0), (0, 1), (47, 32), (24, 16), (5, 31)]
    where = pose_of(found, moved(image, None, shifts)[0]).shift
    expected = (where[0] + torch.tensor(shifts)) % torch.tensor(size)
    assert torch.equal(where, expected)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_or_equal_images_make_a_model_too(n: int) -> None:
    for images in (
        things(n, (8, 8)),
        things(1, (8, 8)).expand(n, -1, -1, -1),
        torch.ones(n, 1, 8, 8),
    ):
        found = reference((8, 8), calibrated=False)
        found.calibrate(images)
        assert all(bool(torch.isfinite(v).all()) for v in found.state_dict().values())
        assert_poses_move(lambda x, found=found: pose_of(found, x), stress_images((8, 8)))


# ------------------------------------------------------- poses move with images


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_move_with_the_image(
    size: tuple[int, ...], channels: int, calibrated: bool
) -> None:
    found = reference(size, channels, calibrated=calibrated)
    assert_poses_move(lambda x: pose_of(found, x), stress_images(size, channels))


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (5, 5)], ids=str)
@pytest.mark.parametrize("group", ["p4", "p4m", "p2", "horizontal"])
def test_poses_move_with_turned_and_shifted_images(
    group: str, size: tuple[int, int], calibrated: bool
) -> None:
    found = reference(size, group=group, calibrated=calibrated)
    images = stress_images(size) | symmetric_images(size)
    assert_poses_move(lambda x: pose_of(found, x), images, named(group))


def symmetric_images(size: tuple[int, int]) -> dict[str, Tensor]:
    """Images that some group elements leave as they are, about a site or an edge of sites."""
    noise = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1), dtype=D)
    half = noise + noise.flip((2, 3))
    return {
        "mirrored about an edge": noise + noise.flip(3),
        "mirrored about a site": noise + noise.flip(3).roll(1, 3),
        "half turns": half,
        "quarter turns": half + half.rot90(1, (2, 3)),
    }


@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 10**6), st.booleans())
@settings(max_examples=25, deadline=None)
def test_poses_of_binary_images_move(size: int, channels: int, seed: int, turns: bool) -> None:
    """Few values, many ties."""
    group = "p4m" if turns else None
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 2, (1, channels, size, size), generator=generator).to(D)
    model = torch.randint(0, 2, (6, channels, size, size), generator=generator).to(D)
    found = reference((size, size), channels, group, calibrated=False)
    found.calibrate(model)
    assert_poses_move(
        lambda x: pose_of(found, x), {"binary": image}, named("p4m") if turns else None
    )


def test_a_symmetric_model_is_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with all symmetries of the group says nothing about orientation."""
    group = named("p4m")
    x = things(30, (8, 8))
    found = reference((8, 8), group="p4m", calibrated=False)
    found.calibrate(torch.cat([group.act(x, g) for g in range(8)]))
    images = stress_images((8, 8))
    assert_poses_move(lambda x: pose_of(found, x), images, group)
    # the first of equal scores in memory does not move with the image
    monkeypatch.setattr(template, "correlate", lambda x: torch.zeros_like(x[:, 0]))
    with pytest.raises(AssertionError, match="noise has several canonical views"):
        assert_poses_move(lambda x: pose_of(found, x), images, group)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_images_of_lower_precision_are_as_exact(dtype: torch.dtype) -> None:
    found = reference((8, 8), 2).to(dtype)
    x = torch.randn(5, 2, 8, 8).to(dtype)
    expected = (pose_of(found, x).shift + torch.tensor([3, 0])) % 8
    assert torch.equal(pose_of(found, x.roll(3, 2)).shift, expected)


def test_a_pose_does_not_depend_on_the_batch() -> None:
    found = reference((8, 8), group="p4m")
    x = torch.cat([*stress_images((8, 8)).values(), torch.randn(20, 1, 8, 8, dtype=D)])
    alone = [pose_of(found, v) for v in x.split(1)]
    together = pose_of(found, x)
    assert torch.equal(together.shift, torch.cat([p.shift for p in alone]))
    assert torch.equal(together.element, torch.cat([p.element for p in alone]))


# ------------------------------------------------------------------ keeping it


def test_the_model_is_part_of_the_state() -> None:
    found, fresh = reference((8, 8), 2), reference((8, 8), 2, calibrated=False)
    x = torch.randn(30, 2, 8, 8, dtype=D)
    expected = pose_of(found, x).shift
    assert not torch.equal(pose_of(fresh, x).shift, expected)
    assert not fresh.calibrated
    fresh.load_state_dict(found.state_dict())
    assert fresh.calibrated
    for same in (fresh, copy.deepcopy(found)):
        assert torch.equal(pose_of(same, x).shift, expected)


# --------------------------------------------------------- the check can fail


def test_the_check_of_poses_can_fail() -> None:
    found = reference((8, 8))
    images = stress_images((8, 8))
    with pytest.raises(AssertionError, match="several canonical views"):
        assert_poses_move(lambda x: pose_of(found, x), {"nan": images["noise"] * math.nan})
    with pytest.raises(AssertionError, match="several canonical views"):
        assert_poses_move(lambda x: pose_of(found, x), {"noise": images["noise"]}, named("p4"))

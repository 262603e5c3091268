"""Small problems for tests of the outer loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from symlearn import FitConfig
from symlearn.fit import Fitting
from symlearn.relaxed import relaxed_layers
from symlearn.wrap import wrap


def blobs(n: int = 120, seed: int = 0, place: bool = False) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 8, 8] of a bar at a random place: which way does it point, or also: which half?

    With ``place`` the label also says in which half of the image the bar is, which a circularly
    invariant network cannot know.
    """
    g = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(n, 1, 8, 8, generator=g)
    way = torch.randint(0, 2, (n,), generator=g)
    half = torch.randint(0, 2, (n,), generator=g)
    for i in range(n):
        row, column = 2, 4 * int(half[i])
        if way[i]:
            x[i, 0, row : row + 3, column] += 1
        else:
            x[i, 0, row, column : column + 3] += 1
    return x, way + 2 * half * int(place)


def tiny_cnn(classes: int = 2, seed: int = 0) -> nn.Sequential:
    """Two convolutions and a pooled head for 8x8 images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def tiny_relaxed(classes: int = 2, seed: int = 0, **options: object) -> nn.Module:
    """`tiny_cnn`, relaxed and circular unless options say otherwise."""
    given = {"boundary": "circular", **options}
    return wrap(tiny_cnn(classes, seed), torch.zeros(1, 1, 8, 8), **given)  # type: ignore[arg-type]


def both_on(seed: int = 0, **options: object) -> Fitting:
    """A fit in which the second layer has both paths on."""
    model = tiny_relaxed(4, seed=seed)
    ffc = relaxed_layers(model)["2"].path("ffc")
    ffc.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in ffc.parameters():
            p.mul_(0.5)
    given = {"epochs": 12, "progress": False, "challenge_epochs": 4, **options}
    return Fitting(model, blobs(200), FitConfig(**given))  # type: ignore[arg-type]

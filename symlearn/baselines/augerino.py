"""Learned input augmentation, in the manner of Augerino (Benton et al. 2020).

Training inputs are shifted and turned by uniform random amounts whose ranges are learned by
gradient: the loss rewards wide ranges by ``reward * (shift + turn)``. Predictions are averages over
the learned ranges. It tells which invariance the task as a whole allows, not which layer wants it.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from curvature import Data
from symlearn.baselines.outcome import BaselineResult
from symlearn.baselines.training import train_map
from symlearn.fit import FitConfig, FitResult
from symlearn.fit.fitting import Fitting

_LIMIT = 0.5  # half the image to each side is all of a circular one, half a turn to each side too


class RandomPose(nn.Module):
    """Shifts and turns images by uniform random amounts.

    Args:
        shift: Largest shift, in widths and heights of the image, in [0, 0.5].
        turn: Largest turn, in full turns, in [0, 0.5].
        circular: Whether images continue periodically, or by zeros.
        seed: Seed of the draws.

    Raises:
        ValueError: For ranges outside [0, 0.5].
    """

    def __init__(
        self, shift: float = 0.05, turn: float = 0.05, *, circular: bool = True, seed: int = 0
    ) -> None:
        super().__init__()
        if not (0 <= shift <= _LIMIT and 0 <= turn <= _LIMIT):
            raise ValueError(f"shift={shift} and turn={turn}; give ranges in [0, {_LIMIT}]")
        self.ranges = nn.Parameter(torch.tensor([float(shift), float(turn)]))
        self.circular = circular
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W], each moved by a draw of its own."""
        draw = (2 * torch.rand(len(x), 3, generator=self._generator) - 1).to(x)
        ranges = self.ranges.to(x)
        angle = 2 * torch.pi * ranges[1] * draw[:, 2]
        ratio = x.shape[-2] / x.shape[-1]  # coordinates run from -1 to 1 on either side
        cos, sin = angle.cos(), angle.sin()
        shift = 2 * ranges[0] * draw[:, :2]
        turned = torch.stack(
            [
                torch.stack([cos, -sin * ratio, shift[:, 0]], 1),
                torch.stack([sin / ratio, cos, shift[:, 1]], 1),
            ],
            1,
        )
        grid = F.affine_grid(turned, list(x.shape), align_corners=False)
        if self.circular:
            grid = (grid + 1).remainder(2) - 1  # positions in the first period
            x = F.pad(x, (1, 1, 1, 1), mode="circular")  # for those between its last and first site
            size = grid.new_tensor([x.shape[-1], x.shape[-2]])
            grid = grid * (size - 2) / size
        return F.grid_sample(x, grid, align_corners=False)


def augerino(
    model: nn.Module, train: Data, config: FitConfig | None = None, *, reward: float = 0.1
) -> BaselineResult:
    """Train all paths with learned ranges of shifts and turns of the input.

    Args:
        model: A relaxed network for images [N, C, H, W].
        train: Training data.
        config: Options of the training; ranges move with its learning rate.
        reward: Nats per sample that the loss gives for ranges of one.

    Raises:
        ValueError: For a negative reward, or as `symlearn.fit`.
    """
    if not 0 <= reward < float("inf"):
        raise ValueError(f"reward is {reward}; give a number of at least 0")
    config = config or FitConfig()
    pose = RandomPose(seed=config.seed)
    began = time.process_time()
    hooks: list[RemovableHandle] = []

    def prepare(run: Fitting) -> None:
        hooks.append(
            run.model.register_forward_pre_hook(
                lambda module, args: (pose(args[0]),) if module.training else None
            )
        )
        hooks.append(run.state.optimiser.register_step_post_hook(_range_step(pose, reward)))

    run = train_map(model, train, config, prepare=prepare)
    for hook in hooks:
        hook.remove()
    seconds = time.process_time() - began
    shift, turn = pose.ranges.tolist()
    return BaselineResult(
        name="augerino",
        result=run.finish(),
        seconds=seconds,
        chosen={"shift": shift, "turn": turn},
    )


@torch.no_grad()
def averaged_proba(
    result: FitResult, pose: RandomPose, x: Tensor, copies: int = 16, batch_size: int = 512
) -> Tensor:
    """Predictions averaged over random poses, [N, K].

    Args:
        result: A fit.
        pose: What the inputs undergo.
        x: Inputs [N, C, H, W].
        copies: Draws per input.
        batch_size: Samples per forward pass.

    Raises:
        ValueError: If ``copies`` is less than one.
    """
    if copies < 1:
        raise ValueError(f"copies is {copies}; give at least 1")
    drawn = [result.predict_proba(pose(x), batch_size) for _ in range(copies)]
    return torch.stack(drawn).mean(0)


def _range_step(pose: RandomPose, reward: float) -> Any:
    # Adam, as for the weights: gradients of ranges through pixels are small and noisy.
    adam = torch.optim.Adam(pose.parameters(), lr=1.0)

    @torch.no_grad()
    def step(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if pose.ranges.grad is not None:
            pose.ranges.grad -= reward
            adam.param_groups[0]["lr"] = optimiser.param_groups[0]["lr"]
            adam.step()
            adam.zero_grad()
            pose.ranges.clamp_(0, _LIMIT)

    return step

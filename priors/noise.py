"""The noise of a Gaussian likelihood, learned by evidence (MacKay 1992, Eq. 2.22 and 2.23)."""

from __future__ import annotations

import math


def update_noise(
    residual_sq: float, n_targets: int, effective: float, noise: float, step: float = 1.0
) -> float:
    """New standard deviation of the observation noise.

    The fixed point ``sigma^2 = ||y - f||^2 / (N K - gamma)`` is where the evidence is stationary in
    sigma; ``step`` moves ``log sigma`` that fraction of the way.

    Args:
        residual_sq: Sum of squared residuals at the current weights.
        n_targets: Number of observed values ``N K``.
        effective: Effective number of parameters gamma of all groups at the current noise.
        noise: Current standard deviation.
        step: Fraction of the way in ``log sigma``.

    Raises:
        ValueError: If gamma reaches the number of targets, so that the noise is not determined, the
            residuals vanish, or the present noise or the step is not positive.
    """
    if not all(math.isfinite(v) and v > 0 for v in (noise, step)):
        raise ValueError(f"noise is {noise} and step {step}; both must be positive and finite")
    if not 0 <= effective < n_targets:
        raise ValueError(
            f"{effective:.1f} effective parameters for {n_targets} targets: the noise is not "
            "determined; give a fixed noise or more data"
        )
    if not (math.isfinite(residual_sq) and residual_sq > 0):
        raise ValueError(f"the sum of squared residuals is {residual_sq}; it must be positive")
    target = 0.5 * math.log(residual_sq / (n_targets - effective))
    return math.exp(math.log(noise) + step * (target - math.log(noise)))

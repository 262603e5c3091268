"""Bounds on the risk of one network by its error on n samples and the cost of naming it.

Each holds with probability ``1 - delta`` over the samples, for all networks at once, whichever was
chosen after seeing them. ``kl`` is ``log 1 / P(h)`` in nats for the network h that was chosen; the
prior P does not depend on the samples. Bounds are for the loss that is 0 or 1.
"""

from __future__ import annotations

import math

from scipy import optimize

ALPHAS = (1.001, 1.01, 1.1)
"""Constants of Catoni's bound: near 1 for messages of thousands of nats, larger for short ones."""


_HALVINGS = 80


def description_kl(bits: int) -> float:
    """``log 1/P(h)`` in nats of a network that a message of so many bits describes.

    ``l log 2 + 2 log l`` (Sec. 5.3): ``P(h) = 2^-l / l^2`` is a prior because messages have two
    bits or more, and ``sum_(l >= 2) 1/l^2 < 1``.

    Args:
        bits: Length l of the message.

    Raises:
        ValueError: For a message of fewer than two bits.
    """
    if bits < 2:
        raise ValueError(f"a message has {bits} bits; the prior is over messages of 2 or more")
    return bits * math.log(2) + 2 * math.log(bits)


def catoni(error: float, kl: float, n: int, delta: float) -> float:
    """Catoni's bound (Theorem A.3), at the best lambda and the best alpha of `ALPHAS`.

    ``Phi^-1_(lambda/n)[error + alpha/lambda (kl + log 1/delta + 2 log(log(alpha^2 lambda)/log
    alpha))]`` with ``Phi^-1_g(x) = (1 - exp(-g x)) / (1 - exp(-g))``; the printed theorem has lost
    the exponents' signs. It holds for all lambda > 1 together, so searching for the best is free;
    each alpha has its share of delta.

    Args:
        error: Share of the samples that the network has wrong.
        kl: ``log 1/P(h)`` in nats.
        n: Number of samples.
        delta: Probability that the bound does not hold.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check(error, kl, n, delta)
    share = delta / len(ALPHAS)
    return min(1.0, *(_catoni_at(alpha, error, kl, n, share) for alpha in ALPHAS))


def _catoni_at(alpha: float, error: float, kl: float, n: int, delta: float) -> float:
    def at(log_lambda: float) -> float:
        lam = math.exp(log_lambda)
        grid = 2 * math.log(math.log(alpha**2 * lam) / math.log(alpha))
        inner = error + alpha / lam * (kl - math.log(delta) + grid)
        return math.expm1(-lam / n * inner) / math.expm1(-lam / n)

    span = (1e-9, math.log(n) + 10)
    found = optimize.minimize_scalar(at, bounds=span, method="bounded", options={"xatol": 1e-6})
    return at(float(found.x))


def maurer(error: float, kl: float, n: int, delta: float) -> float:
    """Maurer's bound: the largest R with ``kl(error || R) <= (kl + log(2 sqrt(n) / delta)) / n``.

    Args and errors are those of `catoni`.
    """
    _check(error, kl, n, delta)
    return kl_inverse(error, (kl + math.log(2 * math.sqrt(n) / delta)) / n)


def mcallester(error: float, kl: float, n: int, delta: float) -> float:
    """McAllester's bound: ``error + sqrt((kl + log(n / delta) + 2) / (2 n - 1))`` (Eq. 5.2).

    Args and errors are those of `catoni`.
    """
    _check(error, kl, n, delta)
    return min(1.0, error + math.sqrt((kl + math.log(n / delta) + 2) / (2 * n - 1)))


def occam(error: float, kl: float, n: int, delta: float) -> float:
    """Langford's bound for one network: the binomial tail at confidence ``delta P(h)``.

    The largest R for which ``n error`` mistakes or fewer in n have at least that probability; a
    bound of this kind cannot be smaller, but for the estimate of the tail from above. Args and
    errors are those of `catoni`.
    """
    _check(error, kl, n, delta)
    wrong, target = round(error * n), math.log(delta) - kl
    low, high = wrong / n, 1.0  # the tail falls with the risk
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _log_tail(wrong, n, middle) >= target else (low, middle)
    return high


def hoeffding(error: float, n: int, delta: float) -> float:
    """``error + sqrt(log(1/delta) / (2 n))``, for one network that was fixed before the samples.

    Args and errors are those of `catoni`.
    """
    _check(error, 0.0, n, delta)
    return min(1.0, error + math.sqrt(-math.log(delta) / (2 * n)))


def kl_inverse(error: float, budget: float) -> float:
    """The largest R with ``kl(error || R) <= budget``, kl between Bernoulli variables, in nats."""
    low, high = error, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _bernoulli_kl(error, middle) <= budget else (low, middle)
    return high


BOUNDS = {"catoni": catoni, "maurer": maurer, "mcallester": mcallester, "occam": occam}


def _bernoulli_kl(p: float, q: float) -> float:
    if q >= 1:
        return 0.0 if p >= 1 else math.inf
    left = p * math.log(p / q) if p > 0 else 0.0
    right = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return left + right


def _log_tail(wrong: int, n: int, risk: float) -> float:
    """At least ``log P(Bin(n, risk) <= wrong)``, also where the probability is below any float.

    Below the mean, each term of the sum is less than ``ratio`` times the one before.
    """
    if not 0 < risk < 1:
        return 0.0 if risk <= 0 or wrong >= n else -math.inf
    ratio = wrong * (1 - risk) / ((n - wrong + 1) * risk)
    if ratio >= 1:
        return 0.0
    ways = math.lgamma(n + 1) - math.lgamma(wrong + 1) - math.lgamma(n - wrong + 1)
    term = ways + wrong * math.log(risk) + (n - wrong) * math.log1p(-risk)
    return min(0.0, term - math.log1p(-ratio))


def _check(error: float, kl: float, n: int, delta: float) -> None:
    problems = []
    if not 0 <= error <= 1:
        problems.append(f"error is {error}, a share in [0, 1] is needed")
    if not 0 <= kl < math.inf:
        problems.append(f"kl is {kl}, at least 0 nats are needed")
    if n < 1:
        problems.append(f"n is {n}, at least one sample is needed")
    if not 0 < delta < 1:
        problems.append(f"delta is {delta}, a probability in (0, 1) is needed")
    if problems:
        raise ValueError("; ".join(problems))

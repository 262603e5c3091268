"""The rules that turn numbers into words; the thresholds live here and nowhere else.

`verdict` names the paths of one layer that are present, by their effective parameters. `compare`
says whether independent measurements see the same, `across_seeds` whether several seeds do, and
`whereabouts` in which layers a free path is needed. docs/theory/verdict.md gives the reasons.

A path that the fit left on is

* *present* when its relative effective parameters reach `ON_SHARE`,
* *doubtful* when they lie in `[DOUBTFUL_SHARE, ON_SHARE)`,
* absent below that. A path that the fit switched off is always absent, and so is one that does not
  pay: whose evidence gain is below `MIN_GAIN` beside a path that has it. Where no path has it, one
  is absent if the evidence prefers its absence and has left it less than `MIN_EFFECTIVE` effective
  parameters (the last path of a layer is never switched off).

The verdict names the present paths. It is `"undecided"` rather than a guess when a path is
doubtful, when a number the rule needs is not finite, or when the last evidence steps disagreed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symlearn.report.structure import PathStructure

ON_SHARE = 0.05
"""Relative effective parameters from which a path that is on counts as present."""

DOUBTFUL_SHARE = 0.01
"""Relative effective parameters from which a path that is on counts as doubtful."""

MIN_EFFECTIVE = 0.5
"""Effective parameters from which a path counts though the evidence prefers its absence."""

MIN_FACTOR = 3.0
"""Log Bayes factor, in nats, from which evidence counts as strong."""

MIN_GAIN = MIN_FACTOR
"""Gain in nats that a path needs to count beside one that has it."""

MIN_AGREEMENT = 0.5
"""Share of the last evidence steps that must have had the same verdict."""

OFF = "off"
UNDECIDED = "undecided"

BREAKING, COMMUTING = 0.01, 0.001
"""Shares of an operator's squared norm: from the first it breaks a symmetry, below the second not.

They are lower than those of the effective parameters: a free path has many more weights than a
strict one, so a share of its layer's effective parameters per parameter is a smaller share of the
norm.
"""

MIN_DROP = 0.01
"""Drop of the shift error that counts: a hundredth of the change between two images."""

BROKEN, KEPT, NO_VOTE = "broken", "kept", "–"
AGREE, DISAGREE, UNCLEAR = "agree", "disagree", "unclear"
OUTCOMES = (AGREE, DISAGREE, UNCLEAR)

CONFIDENCE = 0.9
"""Least probability that most seeds would give the verdict that several seeds are said to have."""

NOISE = 0.05
"""Nats per sample by which the log evidences of two trainings of one network differ (measured)."""

NEEDED, NOT_NEEDED = "needed", "not needed"


def verdict(
    paths: Mapping[str, PathStructure],
    *,
    on: float = ON_SHARE,
    doubtful: float = DOUBTFUL_SHARE,
    gain: float = MIN_GAIN,
    agreement: float = math.nan,
) -> str:
    """Name the paths that are present in one layer.

    Args:
        paths: The layer's paths by name. The verdict keeps their order.
        on: Relative effective parameters from which a path counts as present.
        doubtful: Relative effective parameters from which a path counts as doubtful.
        gain: Nats of evidence gain that a path needs to count beside one that has it.
        agreement: Share of the last evidence steps that had this verdict by shares; nan when not
            recorded, which leaves it out of the rule.

    Returns:
        The present paths joined by `"+"` (`"conv"`, `"conv+ffc"`), `"off"` when none is present or
        doubtful, `"undecided"` when one is doubtful, a number of the rule is not finite, or
        `agreement` is below `MIN_AGREEMENT`.

    Raises:
        ValueError: If there is no path, if not `0 <= doubtful <= on <= 1`, if `gain` is nan, or if
            `agreement` is neither nan nor in `[0, 1]`.
    """
    problems = list(_problems(paths, on, doubtful, gain, agreement))
    if problems:
        raise ValueError("; ".join(problems))
    shares = {name: path.relative_effective_params for name, path in _paying(paths, gain).items()}
    known = all(math.isfinite(number) for path in paths.values() for number in _involved(path))
    unsure = any(doubtful <= share < on for share in shares.values())
    if not known or unsure or agreement < MIN_AGREEMENT:
        return UNDECIDED
    return "+".join(name for name, share in shares.items() if share >= on) or OFF


def _paying(paths: Mapping[str, PathStructure], gain: float) -> dict[str, PathStructure]:
    """Paths that are on and explain something, as far as is known."""
    on = {name: path for name, path in paths.items() if path.on}
    # written so that a nan pays
    if any(path.evidence_gain >= gain for path in on.values()):
        return {name: path for name, path in on.items() if not path.evidence_gain < gain}
    return {
        name: path
        for name, path in on.items()
        if not (path.evidence_gain <= 0 and path.effective_params < MIN_EFFECTIVE)
    }


def describe() -> str:
    """Say the rule in words, for the foot of a report."""
    return (
        f"A verdict names the paths that are on and hold at least {ON_SHARE:.0%} of the layer's "
        f"relative effective parameters; beside a path with an evidence gain of {MIN_GAIN:g} nats, "
        f"only those that have it too. It is '{UNDECIDED}' when one of these holds "
        f"{DOUBTFUL_SHARE:.0%} to {ON_SHARE:.0%}, when a number is not finite, or when fewer than "
        f"{MIN_AGREEMENT:.0%} of the last evidence steps agreed; '{OFF}' when no path is left "
        "that explains anything."
    )


def _involved(path: PathStructure) -> tuple[float, ...]:
    # An off path may have an infinite precision; only its share enters the other paths' shares.
    if not path.on:
        return (path.relative_effective_params,)
    return (
        path.relative_effective_params,
        path.normalised_effective_params,
        path.effective_params,
        path.weight_norm_sq,
        path.prior_precision,
    )


def _problems(
    paths: Mapping[str, PathStructure], on: float, doubtful: float, gain: float, agreement: float
) -> Iterator[str]:
    if not paths:
        yield "a verdict needs at least one path, got none"
    # Written so that a nan fails.
    if not 0.0 <= doubtful <= on <= 1.0:
        yield f"thresholds need 0 <= doubtful <= on <= 1, got doubtful={doubtful} and on={on}"
    if not (math.isnan(agreement) or 0.0 <= agreement <= 1.0):
        yield f"agreement is a share in [0, 1], or nan when not recorded; got {agreement}"
    if math.isnan(gain):
        yield "gain is nan; give a number of nats"


# --- The check: do independent measurements see what the evidence sees? ---


def compare(
    evidence_share: float, breaking_share: float, drop: float, drop_error: float
) -> tuple[str, dict[str, str]]:
    """Let three measurements of one layer vote on whether its free paths break the symmetry.

    Each votes `BROKEN`, `KEPT`, or not at all where its number is nan or lies between the limits:

    * evidence: the relative effective parameters of the free paths, at least `ON_SHARE` or below
      `DOUBTFUL_SHARE`;
    * operator: the share of the trained operator's squared norm in their part that does not
      commute, at least `BREAKING` or below `COMMUTING`;
    * function: by how much the shift error drops without them, 95% interval above or below
      `MIN_DROP`.

    Args:
        evidence_share: See `SymmetryCheck`, for this and the others.
        breaking_share: Share in [0, 1].
        drop: Difference of shift errors.
        drop_error: Its standard error.

    Returns:
        `DISAGREE` if two votes are opposite, `AGREE` if at least two are cast and all are equal,
        else `UNCLEAR`; and the votes by name.
    """
    margin = 2.0 * drop_error
    votes = {
        "evidence": _vote(evidence_share >= ON_SHARE, evidence_share < DOUBTFUL_SHARE),
        "operator": _vote(breaking_share >= BREAKING, breaking_share < COMMUTING),
        "function": _vote(drop - margin > MIN_DROP, drop + margin < MIN_DROP),
    }
    cast = [vote for vote in votes.values() if vote != NO_VOTE]
    if len(set(cast)) > 1:
        return DISAGREE, votes
    return (AGREE if len(cast) > 1 else UNCLEAR), votes


def _vote(broken: bool, kept: bool) -> str:
    # all comparisons with nan are false: no vote
    return BROKEN if broken else KEPT if kept else NO_VOTE


def describe_check() -> str:
    """Say the rule of `compare` in words, for the foot of a report."""
    return (
        "Do free paths break translations? Yes by the evidence from a share of "
        f"{ON_SHARE:.0%}, no below {DOUBTFUL_SHARE:.0%}; by the operator from {BREAKING:.0%}, no "
        f"below {COMMUTING:.1%}; by the network if the shift error without them is lower by more "
        f"than {MIN_DROP}, no if not (95% intervals). '{DISAGREE}' is a yes and a no, '{AGREE}' "
        f"at least two equal answers. The LEE has no vote: aliasing dominates it in strict "
        "networks too."
    )


def supported(found: str, outcomes: Iterable[str]) -> str:
    """A verdict, or `UNDECIDED` where a check disagrees with it.

    Args:
        found: The verdict of the evidence.
        outcomes: Outcomes of the layer's checks; none if it was not checked.
    """
    return UNDECIDED if DISAGREE in outcomes else found


# --- Several seeds: does the verdict hold whatever the seed? ---


def most_would_agree(votes: int, n: int) -> float:
    """Probability that more than half of all seeds give a verdict, after so many of n did.

    The share p of seeds that give it has a uniform prior, so that it is
    ``P(p > 1/2 | votes) = P(Binomial(n + 1, 1/2) <= votes)``.

    Args:
        votes: Seeds with the verdict.
        n: Seeds.
    """
    return math.fsum(math.comb(n + 1, k) for k in range(votes + 1)) / 2.0 ** (n + 1)


def across_seeds(
    verdicts: Sequence[str], shares: Mapping[str, Sequence[float]]
) -> tuple[str, float]:
    """The verdict of several seeds on one layer.

    It is the most frequent of the seeds' verdicts, or `UNDECIDED`

    * when `most_would_agree` is below `CONFIDENCE`: two seeds are never enough, three must agree,
      one of six may differ;
    * when the mean share of a path lies within one standard error of `ON_SHARE`, so that the seeds
      do not say on which side it is;
    * when it is what most seeds say, which includes those whose check disagrees (`supported`).

    Args:
        verdicts: A verdict per seed.
        shares: Relative effective parameters per seed, by path; 0 for a path that is off.

    Returns:
        The verdict, and the probability that most seeds would give the most frequent one.

    Raises:
        ValueError: If there is no seed, or not one share per seed.
    """
    n = len(verdicts)
    if not n or any(len(values) != n for values in shares.values()):
        raise ValueError(f"give at least one seed, and a share per seed; got {n} verdicts")
    most = max(verdicts, key=list(verdicts).count)
    probability = most_would_agree(list(verdicts).count(most), n)
    clear = all(_off_the_limit(values) for values in shares.values())
    return (most if probability >= CONFIDENCE and clear else UNDECIDED), probability


def describe_seeds() -> str:
    """Say the rule of `across_seeds` in words, for the foot of a report."""
    return (
        "A verdict is what most seeds say, if the probability that most others would say so is at "
        f"least {CONFIDENCE:.0%} (three of three, five of six) and no path's mean share is within "
        f"a standard error of {ON_SHARE:.0%}; else it is '{UNDECIDED}'."
    )


def _off_the_limit(values: Sequence[float]) -> bool:
    """Whether the mean is more than its standard error away from `ON_SHARE`."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    # a nan is on no side
    return abs(mean - ON_SHARE) > math.sqrt(variance / len(values))


# --- Where: which sets of layers with a free path explain the data as well as any? ---


def tolerance(n_data: float, noise: float = NOISE) -> float:
    """Nats by which two log evidences must differ to prefer one network to the other.

    `MIN_FACTOR` is the limit of a strong Bayes factor (Kass and Raftery 1995, a factor of 20), on
    top of what two trainings of one network differ by.

    Args:
        n_data: Samples, times the likelihood weight.
        noise: The difference of two trainings, in nats per sample.
    """
    return MIN_FACTOR + noise * n_data


def whereabouts(
    behind: Sequence[tuple[frozenset[str], float]], limit: float
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Whether a free path is needed, and in which layers.

    Candidates are the networks whose evidence is at most ``limit`` behind the best. Of these, one
    that has free paths in all layers of another and in further ones says only that they do no harm;
    what is needed is told by the others.

    Args:
        behind: Per network the layers that have a free path, and by how many nats its log evidence
            is behind the best; nan where it was not measured.
        limit: See `tolerance`.

    Returns:
        `NEEDED` if all candidates have a free path, `NOT_NEEDED` if the best has none, and
        `UNDECIDED` if only some have; the layers in which all candidates that have any have one,
        if it is needed; and the layers in which some have, which cannot be told apart.

    Raises:
        ValueError: If no evidence is known.
    """
    known = [(layers, nats) for layers, nats in behind if math.isfinite(nats)]
    if not known:
        raise ValueError("no network has a finite log evidence to compare")
    best = min(nats for _, nats in known)
    found = {layers for layers, nats in known if nats - best <= limit}
    least = {layers for layers in found if layers and not any(s and s < layers for s in found)}
    some = frozenset[str]().union(*least)
    if frozenset() in found:
        needed = NOT_NEEDED if (frozenset(), best) in known else UNDECIDED
        return needed, (), tuple(sorted(some))
    every = frozenset.intersection(*least)
    return NEEDED, tuple(sorted(every)), tuple(sorted(some - every))

"""What a certificate says in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from symlearn.certify.terms import Terms

if TYPE_CHECKING:
    from symlearn.certify.certificate import Certificate

_PRIORS = {
    "fresh": "The network starts from weights drawn from the seed; {architecture}, and buffers "
    "other than statistics of normalisation layers, were chosen without the training data.",
    "weights": "The weights that the network starts from, and {architecture}, were chosen "
    "without the training data (transfer).",
    "split": "The network that the prior is centred on was drawn from the seed and trained on "
    "{split:.0%} of the training data; {architecture} was chosen without the rest. The bound is "
    "formed on the rest and says nothing of that training.",
}


def assumptions(terms: Terms) -> tuple[str, ...]:
    """What has to be true for the bound to hold, and cannot be checked by computing."""
    architecture = "its architecture"
    if terms.paths:
        architecture += (
            f" before the fit (which of {len(terms.paths)} paths are on is in the message)"
        )
    return (
        "The training samples, and those the bound speaks of, are independent draws from one "
        "distribution.",
        f"The seed {terms.seed}, the projector, the {len(terms.grid)} points of the search, delta "
        "and the kind of bound were fixed before the training data were looked at"
        + (f", but for {terms.alternatives} set-ups." if terms.alternatives > 1 else "."),
        _PRIORS[terms.prior].format(split=terms.split, architecture=architecture),
        "The bound is for the network that the message names, not for the one given.",
    )


def summary(certificate: Certificate) -> str:
    """The bound, what it is made of, and what it assumes."""
    figures, terms = certificate.figures, certificate.terms
    choice = ", ".join(f"{k} {v}" for k, v in certificate.choice.items() if v not in ("", 0))
    parts = ", ".join(f"{name} {bits}" for name, bits in figures.bits.items() if bits)
    others = ", ".join(
        f"{name} {value:.2%}" for name, value in figures.bounds.items() if name != terms.bound
    )
    lines = [
        f"Error on new samples at most {certificate.bound:.2%} with probability "
        f"{1 - terms.delta:.0%} ({terms.bound})",
        f"  training error {certificate.train_error:.2%} of {figures.n} samples",
        f"  message {certificate.message_bits} bits ({certificate.message_bits / 8192:.3f} KB): "
        f"{parts}",
        f"  KL {figures.kl:.1f} nats; found with {choice or 'the prior itself'}, one of "
        f"{len(terms.grid)} points searched",
        f"  other bounds: {others}",
    ]
    if certificate.prior_hoeffding is not None:
        lines.append(
            f"  the prior alone: {figures.prior_wrong / figures.n:.2%} wrong, Hoeffding's bound "
            f"{certificate.prior_hoeffding:.2%}"
        )
    if certificate.vacuous:
        lines.append(
            f"  VACUOUS: always naming the most frequent class has {figures.chance:.2%} wrong"
        )
    return "\n".join([*lines, "Assumed:", *(f"  - {line}" for line in certificate.assumptions)])

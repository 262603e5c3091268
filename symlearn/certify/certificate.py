"""A certificate: the message, what was agreed beforehand, and what follows from both.

It is one file: safetensors for the message and for values that are not drawn from the seed, JSON in
its header for all else. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import curvature
from curvature import Data
from symlearn.atomic import as_path, whole_file
from symlearn.certify import bounds, message
from symlearn.certify.terms import Terms
from symlearn.certify.training import Pair, mistakes
from symlearn.certify.words import assumptions, summary
from symlearn.fit.tree import checksum

FORMAT = "symlearn.certificate/1"
_MESSAGE = "message"
_SLACK = 1e-4  # share of the samples that may come out otherwise on another processor
_ROUNDING = 1e-6  # of a bound
_BATCH = 4096


class CertificateError(ValueError):
    """A certificate does not hold for the data: its message, its figures or the data differ."""


@dataclass(frozen=True)
class Figures:
    """What a message and the training data give; the same at every verification.

    Attributes:
        n: Samples that the bound is formed on.
        wrong: Mistakes of the network that the message names.
        bits: Bits of the message by part; they add up to its length.
        kl: ``l log 2 + 2 log l`` of the length l, in nats.
        bounds: Every bound by name. Each holds at the confidence by itself, not all at once.
        chance: Error of always naming the most frequent class.
        prior_wrong: Mistakes of the network that the prior is centred on.
        start: Checksum of the parameters of that network.
        data: Checksum of all the data.
    """

    n: int
    wrong: int
    bits: Mapping[str, int]
    kl: float
    bounds: Mapping[str, float]
    chance: float
    prior_wrong: int
    start: str
    data: str


@dataclass(frozen=True)
class Certificate:
    """A bound on the error of a network on new samples, and all that is needed to check it.

    Attributes:
        message: The bytes that name the network.
        terms: What the bytes mean: the prior.
        figures: What follows from them and the training data.
        tried: Every point of the search with its bound, for reading; none of it is verified.
        source: Name of the data, for reading.
    """

    message: bytes
    terms: Terms
    figures: Figures
    tried: tuple[dict[str, Any], ...] = ()
    source: str = ""

    @property
    def bound(self) -> float:
        """The error on new samples is at most this, with probability ``1 - delta``."""
        return self.figures.bounds[self.terms.bound]

    @property
    def train_error(self) -> float:
        """Error of the network that the message names, on the samples the bound is formed on."""
        return self.figures.wrong / self.figures.n

    @property
    def message_bits(self) -> int:
        """Length of the message."""
        return 8 * len(self.message)

    @property
    def kl(self) -> float:
        """``log 1/P(h)`` in nats."""
        return self.figures.kl

    @property
    def parts(self) -> Mapping[str, int]:
        """Bits of the message by part."""
        return self.figures.bits

    @property
    def bounds(self) -> Mapping[str, float]:
        """Every bound by name; each holds at the confidence by itself."""
        return self.figures.bounds

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than always naming the most frequent class would."""
        return not self.bound < self.figures.chance

    @property
    def prior_hoeffding(self) -> float | None:
        """Hoeffding's bound of the prior alone, where it was trained on a part of the data.

        The prior did not see the samples this is formed on. If it is no worse than `bound`, the
        bound explains nothing of what was learned after it (Sec. 5.5.2).
        """
        if self.terms.prior != "split":
            return None
        error = self.figures.prior_wrong / self.figures.n
        return bounds.hoeffding(error, self.figures.n, self.terms.delta)

    @property
    def choice(self) -> dict[str, Any]:
        """The point of the search that the message names."""
        said = message.read(self.message, self.terms.code)
        return asdict(self.terms.grid[said.choice])

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What has to be true for the bound to hold, and cannot be checked by computing."""
        return assumptions(self.terms)

    def __str__(self) -> str:
        """The bound, what it is made of, and what it assumes."""
        return summary(self)

    def network(self, model: nn.Module | None = None) -> nn.Module:
        """The network that the message names, which is what the bound is for.

        Args:
            model: The network that was certified, where it cannot be rebuilt from its description.

        Raises:
            ValueError: If the message is damaged or the network has to be given.
        """
        said = message.read(self.message, self.terms.code)
        network, theta = self.terms.decode(said, model)
        network.put(theta)
        return network.model

    def verify(self, train: Data, model: nn.Module | None = None) -> Figures:
        """Recompute everything from the message and the data, and compare.

        Nothing that is stored is believed: the network is decoded from the message, its mistakes
        are counted, and the bound is formed anew.

        Args:
            train: The training data, in the order in which `symlearn.certify` was given them.
            model: The network that was certified, where it cannot be rebuilt from its description;
                for the result of a fit, its ``model``.

        Returns:
            The figures found. The number of mistakes may differ from those stored by one in 10,000
            samples, because another processor may round otherwise where two outputs are all but
            equal; then the bounds found here are those of this machine.

        Raises:
            CertificateError: If the message or the figures are not what they should be, or the data
                are others; all that is wrong is named.
            ValueError: If the network has to be given, or is another one.
        """
        try:
            found = measure(self.message, self.terms, collected(train), model)
        except message.MessageError as error:
            raise CertificateError(f"the message is damaged: {error}") from error
        problems = _differences(self.terms, self.figures, found)
        if problems:
            raise CertificateError("the certificate does not hold: " + "; ".join(problems))
        return found

    def save(self, path: str | Path) -> None:
        """Write the certificate to one file.

        Raises:
            TypeError: If the path is none.
        """
        path = as_path(path, "path")
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = torch.frombuffer(bytearray(self.message), dtype=torch.uint8)
        tensors = {_MESSAGE: stored, **{f"prior.{k}": v for k, v in self.terms.tensors.items()}}
        facts = json.dumps(self.to_dict())
        digest = _digest(facts, tensors)
        with whole_file(path) as draft:
            save_file(tensors, draft, metadata={"format": FORMAT, "facts": facts, "sha256": digest})

    def to_dict(self) -> dict[str, Any]:
        """All but the message and the tensors, for JSON."""
        return {
            "terms": self.terms.to_dict(),
            "figures": asdict(self.figures),
            "tried": list(self.tried),
            "source": self.source,
        }

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read a certificate.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or foreign.
        """
        path = as_path(path, "path")
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {path}")
        try:
            return cls._read(path)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or no certificate: {error}") from error

    @classmethod
    def _read(cls, path: Path) -> Certificate:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("format") != FORMAT:
            raise ValueError(f"it is not in the format {FORMAT!r}")
        if facts["sha256"] != _digest(facts["facts"], tensors):
            raise ValueError("its checksum is not that of its contents")
        data = json.loads(facts["facts"])
        stored = tensors.pop(_MESSAGE).numpy().tobytes()
        kept = {name.removeprefix("prior."): tensor for name, tensor in tensors.items()}
        terms = Terms.from_dict(data["terms"], kept)
        return cls(stored, terms, Figures(**data["figures"]), tuple(data["tried"]), data["source"])


def measure(data: bytes, terms: Terms, train: Pair, model: nn.Module | None) -> Figures:
    """What a message and the training data give.

    Raises:
        MessageError: If the bytes are no message.
        ValueError: If the network has to be given, or is another one.
    """
    said = message.read(data, terms.code)
    network, theta = terms.decode(said, model)
    x, y = train
    _, used = terms.parts(len(x))
    part = (x[used], y[used])
    found = Figures(
        n=len(used),
        wrong=mistakes(network, theta, part),
        bits=message.write(said, terms.code)[1],
        kl=bounds.description_kl(8 * len(data)),
        bounds={},
        chance=1 - float(torch.bincount(part[1]).max()) / len(used),
        prior_wrong=mistakes(network, network.start, part),
        start=checksum({"start": network.start}),
        data=checksum({"x": x, "y": y}),
    )
    return replace(found, bounds=_bounds(found.wrong, found, terms.delta))


def collected(train: Data) -> Pair:
    """All inputs [N, ...] and classes [N] on the CPU, inputs in single precision.

    Raises:
        TypeError: For data of an unknown kind.
        ValueError: For empty or malformed data, and targets that are no class indices.
    """
    rows = [(x.cpu(), y.cpu()) for x, y in curvature.batches(train, nn.Identity(), _BATCH)]
    x, y = (torch.cat(column) for column in zip(*rows, strict=True))
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or int(y.min()) < 0:
        raise ValueError(
            f"targets are {y.dtype} {list(y.shape)}, the least {y.min().item()}; a certificate is "
            "for classes: give whole numbers [N] from 0"
        )
    return x, y.long()


def _differences(terms: Terms, stored: Figures, found: Figures) -> list[str]:
    """What differs between the figures that are stored and those found."""
    if found.data != stored.data:
        return ["the data are not those it was made for, or come in another order"]
    problems = []
    if found.start != stored.start:
        problems.append(
            "the prior is centred on another network (another version of torch may draw other "
            "random numbers)"
        )
    for what in ("wrong", "prior_wrong"):
        there, here = getattr(stored, what), getattr(found, what)
        if abs(there - here) > _SLACK * stored.n:
            problems.append(f"{what} is stated as {there}, and was found to be {here}")
    for what in ("n", "bits", "kl", "chance"):
        there, here = getattr(stored, what), getattr(found, what)
        if there != here:
            problems.append(f"{what} is stated as {there}, and was found to be {here}")
    follow = _bounds(stored.wrong, found, terms.delta)
    off = [name for name, value in follow.items() if not _close(stored.bounds.get(name), value)]
    if off or len(follow) != len(stored.bounds):
        problems.append(f"the bounds {off} do not follow from the figures")
    return problems


def _bounds(wrong: int, figures: Figures, delta: float) -> dict[str, float]:
    """Every bound for a number of mistakes."""
    n = figures.n
    return {name: one(wrong / n, figures.kl, n, delta) for name, one in bounds.BOUNDS.items()}


def _close(stated: float | None, found: float) -> bool:
    return stated is not None and abs(stated - found) <= _ROUNDING


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{facts} {checksum(tensors)}".encode()).hexdigest()

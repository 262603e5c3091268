"""What sender and receiver of a message agree on before the training data are seen: the prior."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from curvature.checking import check_module, seeded
from symlearn import architecture
from symlearn.certify.bounds import BOUNDS
from symlearn.certify.config import PRIORS, Choice
from symlearn.certify.message import Code, Message
from symlearn.certify.projectors import PROJECTORS, Space
from symlearn.certify.start import kept_names, path_names, redraw
from symlearn.certify.subspace import FlatNetwork
from symlearn.certify.training import Subspace
from symlearn.collapse.collapsing import convert
from symlearn.relaxed import relaxed_layers


@dataclass(frozen=True)
class Terms:
    """Everything that the meaning of a message depends on, and that it therefore need not say.

    Attributes:
        prior: "fresh", "weights" or "split".
        grid: The points of the search.
        projector: Name of the projector.
        seed: Of the projector, of fresh weights and of the split.
        split: Share of the training data that the prior was trained on; 0 if it was not.
        delta: Probability that the bound does not hold.
        bound: Which bound is stated.
        alternatives: Number of set-ups tried by hand, which the message pays for.
        architecture: Description of the network; None if it has modules that cannot be rebuilt from
            their names, and then the network has to be given.
        paths: Paths whose presence the message states, as "layer.path"; such layers are collapsed.
        tensors: Values of the network that are not drawn from the seed.
    """

    prior: str
    grid: tuple[Choice, ...]
    projector: str
    seed: int
    split: float
    delta: float
    bound: str
    alternatives: int
    architecture: dict[str, Any] | None
    paths: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict, compare=False)

    @property
    def code(self) -> Code:
        """How messages are written."""
        return Code(self.grid, len(self.paths), self.alternatives)

    def network(self, structure: tuple[bool, ...], model: nn.Module | None) -> FlatNetwork:
        """The network that the prior is centred on, in single precision on the CPU.

        Args:
            structure: Which of the paths are on.
            model: The network to take where there is no description.

        Raises:
            TypeError: If what is given is no network.
            ValueError: If it has to be given and is not, or is another one.
        """
        if self.architecture is not None:
            base = architecture.build(self.architecture)
        elif model is not None:
            check_module(model)
            base = copy.deepcopy(model).cpu()
        else:
            raise ValueError(
                "the certificate is for a network that cannot be rebuilt from its description; "
                "give the network: model="
            )
        if self.prior == "fresh":
            redraw(base, self.seed)
        if self.paths:
            base = _with_structure(base, dict(zip(self.paths, structure, strict=True)))
        _put(self.tensors, base, self.prior)
        return FlatNetwork(base.float().requires_grad_())

    def subspace(
        self, network: FlatNetwork, choice: Choice, dtype: torch.dtype = torch.float32
    ) -> Subspace:
        """The subspace of a point of the search, with products in the given type."""
        space = Space(choice.dimension, len(network), network.film, self.seed)
        return Subspace(network, PROJECTORS[self.projector](space, dtype))

    def decode(self, message: Message, model: nn.Module | None) -> tuple[FlatNetwork, Tensor]:
        """The network that a message names, and its parameters [D].

        Products are taken in double precision, so that the parameters, in the type of the network,
        hardly ever depend on the order in which a processor adds.

        Raises:
            ValueError: As `network`.
        """
        network = self.network(message.structure, model)
        choice = self.grid[message.choice]
        if not choice.dimension:
            return network, network.start
        w = torch.tensor(message.values, dtype=torch.float64)
        return network, self.subspace(network, choice, torch.float64).theta(w)

    def parts(self, n: int) -> tuple[Tensor, Tensor]:
        """Indices of the samples that the prior was trained on, and of those the bound is for."""
        if not self.split:
            return torch.arange(0), torch.arange(n)
        order = torch.randperm(n, generator=seeded(self.seed))
        size = round(self.split * n)
        return order[:size].sort().values, order[size:].sort().values

    def to_dict(self) -> dict[str, Any]:
        """The terms but their tensors, for JSON."""
        shallow = {name: getattr(self, name) for name in self.__dataclass_fields__}
        shallow.pop("tensors")
        return {**shallow, "grid": [asdict(choice) for choice in self.grid]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Terms:
        """Inverse of `to_dict`.

        Raises:
            ValueError: For a name that does not exist.
        """
        closed = {"prior": PRIORS, "projector": PROJECTORS, "bound": BOUNDS}
        foreign = [name for name, known in closed.items() if data[name] not in known]
        if foreign:
            raise ValueError(f"it has an unknown {' and '.join(foreign)}")
        grid = tuple(Choice(**choice) for choice in data["grid"])
        return cls(**{**data, "grid": grid, "paths": tuple(data["paths"])}, tensors=tensors)


def _with_structure(base: nn.Module, on: Mapping[str, bool]) -> nn.Module:
    """The network without the paths that are off, its relaxed layers collapsed.

    Raises:
        ValueError: If the network has other paths.
    """
    if set(path_names(base)) != set(on):
        raise ValueError(
            f"the certificate is for a network with the paths {sorted(on)}; the one given has "
            f"{sorted(path_names(base))}"
        )
    for layer_name, layer in relaxed_layers(base).items():
        for name, path in layer.named_paths().items():
            if not on[f"{layer_name}.{name}".lstrip(".")]:
                path.switch_off()
    return convert(base)


def _put(tensors: Mapping[str, Tensor], model: nn.Module, prior: str) -> None:
    found = model.state_dict()
    drawn = sorted((set(tensors) & set(found)) - kept_names(model, prior))
    if drawn:
        raise ValueError(
            f"the certificate brings values of {', '.join(drawn)}, which prior={prior!r} draws "
            "from the seed"
        )
    other = [
        name
        for name, tensor in tensors.items()
        if name not in found or found[name].shape != tensor.shape
    ]
    if other:
        raise ValueError(
            f"the certificate is for another network: its {', '.join(sorted(other))} do not fit"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            found[name].copy_(tensor)

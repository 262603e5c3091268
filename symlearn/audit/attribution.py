"""How much each module contributes to a network's Lie derivative.

``L(NN) = sum_i C_i`` with ``C_i = df_{N:i+1} L f_i`` (Gruver et al. 2023, Eq. 4.6), over the graph
of module calls. ``||C_i||^2 = E (z . C_i)^2`` over Gaussian probes z (their A.3.1.3); one backward
pass per probe gives ``z . C_i`` of all modules, transformations and images together. A network with
few outputs takes the unit vectors instead, and the result is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from symlearn.audit import images
from symlearn.audit.calls import Ledger, Surveyed, survey
from symlearn.audit.exported import kind
from symlearn.audit.lie import standard_error
from symlearn.audit.transforms import Transformation
from symlearn.progress import Progress

_FIRST_PROBES = 8
_NEGLIGIBLE = 0.01
"""Share of the largest contribution under which one need not reach the tolerance."""


@dataclass(frozen=True)
class Contribution:
    """What one module contributes to a network's Lie derivative.

    Attributes:
        module: Its name, "" for the network itself.
        kind: Its class.
        calls: How often it is called in a forward pass; the calls' contributions are added.
        part: "module", or "own operations" of a module without those measured within it.
        layouts: How its inputs and outputs transform, in words.
        norm: Mean over images of ``||C||``.
        mean_square: Mean over images of ``||C||^2 / dim(V_2)``, in the units of LEE.
        probe_error: Standard error of ``mean_square`` from the probes alone, 0 if exact.
        standard_error: Standard error of ``mean_square`` over images, probes included.
        share: ``E C . L / E ||L||^2``: signed shares, which add up to one over the table.
        reason: Why the module has no contribution of its own, or None. The numbers are nan then.
    """

    module: str
    kind: str
    calls: int
    part: str
    layouts: str
    norm: float
    mean_square: float
    probe_error: float
    standard_error: float
    share: float
    reason: str | None


@dataclass(frozen=True)
class Attribution:
    """All modules of a network, in its order, and what they contribute.

    Attributes:
        transform: Name of the transformation.
        rows: One per module.
        mean_square: Mean over images of ``||sum C||^2 / dim(V_2)``, which is LEE.
        probe_error: Its standard error from the probes alone, 0 if exact.
        n_probes: Backward passes per batch of images.
        exact: Whether the unit vectors took the place of probes.
        n_images: Number of images.
    """

    transform: str
    rows: tuple[Contribution, ...]
    mean_square: float
    probe_error: float
    n_probes: int
    exact: bool
    n_images: int

    def __getitem__(self, module: str) -> Contribution:
        """The row of a module.

        Raises:
            KeyError: If there is no such module.
        """
        for row in self.rows:
            if row.module == module:
                return row
        raise KeyError(f"no module {module!r}; there are {[row.module for row in self.rows]}")

    @property
    def measured(self) -> tuple[Contribution, ...]:
        """The rows that have a contribution."""
        return tuple(row for row in self.rows if row.reason is None)


@dataclass(frozen=True)
class Probing:
    """How contributions are estimated.

    Args:
        tolerance: Relative standard error from the probes that every contribution of at least 1%
            of the largest should reach.
        most: Most backward passes per batch of images.
        seed: Of the probes.

    Raises:
        ValueError: If the tolerance or the number is not positive.
    """

    tolerance: float = 0.1
    most: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.most < 2:
            raise ValueError(
                f"got tolerance {self.tolerance} and at most {self.most} probes; give a positive "
                "tolerance and at least 2 probes"
            )


def attribute(
    model: nn.Module,
    x: Tensor,
    transforms: Sequence[Transformation],
    *,
    link: str = "identity",
    output: str = "auto",
    probing: Probing | None = None,
    memory_gb: float = 2.0,
    progress: bool | None = False,
) -> tuple[Attribution, ...]:
    """Attribute a network's Lie derivatives to its modules.

    Args:
        model: The network; it is run in eval mode.
        x: Images [N, C, H, W].
        transforms: The transformations.
        link: "identity" or "softmax".
        output: How transformations act on outputs: "auto", "image" or "vector".
        probing: How precisely.
        memory_gb: Memory for activations, in units of 10^9 bytes.
        progress: Whether to show a progress bar; None on terminals only.

    Returns:
        One table per transformation.

    Raises:
        ValueError: If the network does not return one finite row per image, or computes something
            else when its modules are watched.
    """
    probing = probing or Probing()
    with images.frozen(model):
        surveyed, layouts = survey(model, x[:2])
        copies = 3 + 2 * len(transforms)
        size = images.batch_size(model, x, copies, memory_gb)
        ledger = Ledger(model, surveyed, layouts, transforms, output)
        parts = x.split(size)
        n_probes, found = 0, list[_Products]()
        with Progress(progress, "layers", len(parts)) as bar:
            for i, part in enumerate(parts):
                generator = torch.Generator().manual_seed(probing.seed + i)
                products = _Products(generator, probing, len(x), n_probes)
                products.measure(ledger, model, part, link)
                n_probes = products.n
                found.append(products)
                bar.advance()
    pooled = _Pooled(found, len(x))
    return tuple(
        _table(t.name, k, surveyed, ledger.reached, pooled) for k, t in enumerate(transforms)
    )


class _Products:
    """``z . C`` of one batch of images, summed over probes.

    Args:
        generator: Draws the probes.
        probing: How precisely.
        n_images: Images of all batches together.
        n_probes: Number of probes, or 0 to choose it.
    """

    def __init__(
        self, generator: torch.Generator, probing: Probing, n_images: int, n_probes: int
    ) -> None:
        self.generator, self.probing = generator, probing
        self.n_images, self.wanted = n_images, n_probes
        self.n, self.exact, self.dim = 0, False, 0
        self.squares = self.cross = self.total = torch.zeros(0)
        self.means: list[Tensor] = []

    def measure(self, ledger: Ledger, model: nn.Module, x: Tensor, link: str) -> None:
        """Send probes back through the network until the tolerance is reached."""
        with torch.no_grad():
            plain = images.outputs(model, x, link)
        try:
            graph, y = ledger.forward(x)
            y = images.outputs(lambda _: y, x, link)
            if not torch.allclose(y, plain, rtol=1e-3, atol=1e-5 * float(plain.abs().max())):
                raise ValueError(
                    "the network computes something else when the inputs of its modules are "
                    "copied: does a module return its result by overwriting its input?"
                )
            self.dim = y[0].numel()
            self.exact = self.dim <= self.probing.most
            self.squares = torch.zeros_like(ledger.account)
            self.cross, self.total = self.squares.clone(), self.squares[:, :1].clone()
            if y.requires_grad:
                for z in self._vectors(y):
                    ledger.account.zero_()
                    torch.autograd.grad(y, graph, z, retain_graph=True)
                    self._add(ledger.account)
        finally:
            ledger.close()

    def _vectors(self, y: Tensor) -> Iterator[Tensor]:
        if self.exact:
            for k in range(self.dim):
                z = torch.zeros_like(y)
                z.flatten(1)[:, k] = 1
                yield z
            return
        while self.n < (self.wanted or self.probing.most):
            z = torch.randn(y.shape, generator=self.generator, dtype=torch.float64)
            yield z.to(y)
            if not self.wanted and self.n >= _FIRST_PROBES and self._precise():
                return

    def _add(self, account: Tensor) -> None:
        images.check_finite(account, "a contribution to the Lie derivative")
        whole = account.sum(1, keepdim=True)
        self.squares += account.square()
        self.cross += account * whole
        self.total += whole.square()
        self.means.append(torch.cat([account, whole], 1).square().mean(2))
        self.n += 1

    def error(self) -> Tensor:
        """Standard error from the probes of the mean squares [T, R + 1], the sum last."""
        means = torch.stack(self.means)
        if self.exact:
            return torch.zeros_like(means[0])
        error: Tensor = means.std(0) / self.n**0.5
        return error

    def _precise(self) -> bool:
        mean = torch.stack(self.means).mean(0)
        # errors of the batches average out
        error = self.error() * (len(self.squares[0, 0]) / self.n_images) ** 0.5
        large = mean >= _NEGLIGIBLE * mean.amax(1, keepdim=True)
        return bool((error[large] <= self.probing.tolerance * mean[large]).all())


class _Pooled:
    """All batches together, per image and per output."""

    def __init__(self, found: Sequence[_Products], n_images: int) -> None:
        first = found[0]
        self.n_images, self.n_probes, self.exact = n_images, first.n, first.exact
        self.dim = first.dim
        if not first.n:
            raise ValueError(
                "the network's outputs have no gradient with respect to the images (detached?)"
            )
        scale = 1.0 if first.exact else 1.0 / first.n
        self.squares = scale * torch.cat([p.squares for p in found], 2)  # ||C||^2 [T, R, N]
        self.total = scale * torch.cat([p.total for p in found], 2)[:, 0]  # ||L||^2 [T, N]
        cross, whole = sum(p.cross.sum(2) for p in found), sum(p.total.sum(2) for p in found)
        # a network without error has no shares
        self.shares = torch.where(torch.as_tensor(whole) > 0, cross / whole, 0.0)
        weights = [p.squares.shape[2] / n_images for p in found]
        pieces = [(w * p.error()).square() for w, p in zip(weights, found, strict=True)]
        self.error = torch.stack(pieces).sum(0).sqrt() / self.dim


def _table(
    transform: str, k: int, surveyed: Sequence[Surveyed], reached: Sequence[bool], pooled: _Pooled
) -> Attribution:
    rows, nothing = [], torch.full_like(pooled.squares[k, 0], float("nan"))
    for i, entry in enumerate(surveyed):
        reason = entry.reason
        if reason is None and not reached[i]:
            reason = "no gradient passes: it does not link the image to the output"
        if reason is not None and entry.calls:
            reason += f"; counted in {entry.parent or 'the network'!r}"
        squares = pooled.squares[k, i] if reason is None else nothing
        rows.append(
            Contribution(
                module=entry.name,
                kind=kind(entry.module)[1],
                calls=entry.calls,
                part="own operations" if entry.holds else "module",
                layouts=entry.transforms_as,
                norm=float(squares.sqrt().mean()),
                mean_square=float(squares.mean()) / pooled.dim,
                probe_error=float("nan") if reason else float(pooled.error[k, i]),
                standard_error=float(standard_error(squares)) / pooled.dim,
                share=float("nan") if reason else float(pooled.shares[k, i]),
                reason=reason,
            )
        )
    return Attribution(
        transform,
        tuple(rows),
        float(pooled.total[k].mean()) / pooled.dim,
        float(pooled.error[k, -1]),
        pooled.n_probes,
        pooled.exact,
        pooled.n_images,
    )

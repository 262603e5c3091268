"""Certificates: what they state, that they are checked from the message alone, and their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import symlearn
from symlearn.certify import Certificate, CertificateError, CertifyConfig, certify, message
from symlearn.certify.bounds import BOUNDS, description_kl
from symlearn.certify.projectors import PROJECTORS
from symlearn.collapse import CollapseReport
from tests.fit.problems import blobs, tiny_relaxed

pytestmark = pytest.mark.core

OPTIONS = CertifyConfig(
    dimensions=(9, 16),
    levels=(3,),
    epochs=4,
    quantise_epochs=2,
    learning_rate=0.3,
    quantise_rates=(0.1,),
    batch_size=40,
    progress=False,
)


def cnn(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        middle,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 2),
    )


class Own(nn.Module):
    """A network that no description of standard modules can rebuild."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


DATA = blobs(300)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return certify(cnn(), DATA, OPTIONS, source="blobs")


def test_figures_follow_from_the_named_network(certificate: Certificate) -> None:
    network = certificate.network()
    with torch.no_grad():
        wrong = int((network(DATA[0]).argmax(1) != DATA[1]).sum())
    assert certificate.train_error == wrong / 300
    assert (
        certificate.message_bits == 8 * len(certificate.message) == sum(certificate.parts.values())
    )
    kl = description_kl(certificate.message_bits)
    assert certificate.kl == kl
    for name, bound in BOUNDS.items():
        assert certificate.bounds[name] == bound(wrong / 300, kl, 300, 0.05)
    assert certificate.bound == certificate.bounds["catoni"]
    assert certificate.bound == min(row["bound"] for row in certificate.tried)
    assert {row["dimension"] for row in certificate.tried} == {9, 16}


def test_the_network_is_theta_0_plus_p_w(certificate: Certificate) -> None:
    said = message.read(certificate.message, certificate.terms.code)
    network, theta = certificate.terms.decode(said, None)
    d = certificate.choice["dimension"]
    subspace = certificate.terms.subspace(
        network, certificate.terms.grid[said.choice], torch.float64
    )
    unit = torch.eye(d, dtype=torch.float64)
    p = torch.stack([subspace.projector @ column for column in unit], 1)
    want = network.start.double() + p @ torch.tensor(said.values, dtype=torch.float64)
    torch.testing.assert_close(theta, want.float(), rtol=0, atol=1e-6)
    assert set(said.values) <= set(said.codebook)
    assert len(said.codebook) == 3
    torch.testing.assert_close(
        torch.cat([p.detach().reshape(-1) for p in certificate.network().parameters()]), theta
    )


def test_same_options_same_message(certificate: Certificate) -> None:
    model = cnn()
    before = [p.clone() for p in model.parameters()]
    torch.manual_seed(99)
    again = certify(model, DATA, OPTIONS, source="blobs")
    assert again.message == certificate.message
    assert all(map(torch.equal, model.parameters(), before))
    other = certify(cnn(), DATA, replace(OPTIONS, seed=1))
    assert other.figures.start != certificate.figures.start


def test_the_given_weights_do_not_matter_for_a_fresh_prior(certificate: Certificate) -> None:
    model = cnn()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert certify(model, DATA, OPTIONS).message == certificate.message


def test_verify(certificate: Certificate, tmp_path: Path) -> None:
    assert certificate.verify(DATA) == certificate.figures
    arrays = DATA[0].numpy(), DATA[1].numpy()
    certificate.verify(arrays)
    file = tmp_path / "new" / "blobs.cert"
    certificate.save(file)
    loaded = Certificate.load(file)
    assert loaded.verify(DATA) == certificate.figures
    assert str(loaded) == str(certificate)
    assert loaded == certificate
    assert "Error on new samples at most" in str(loaded)
    assert all(line in str(loaded) for line in loaded.assumptions)


def forged(certificate: Certificate, **figures: object) -> Certificate:
    return replace(certificate, figures=replace(certificate.figures, **figures))


FORGERIES: dict[str, Callable[[Certificate], Certificate]] = {
    "wrong": lambda c: forged(c, wrong=c.figures.wrong - 1),
    "bounds": lambda c: forged(c, bounds={**c.bounds, "catoni": 0.01}),
    "bounds nan": lambda c: forged(c, bounds={**c.bounds, "occam": float("nan")}),
    "no bounds": lambda c: forged(c, bounds={"catoni": c.bound}),
    "consistent but for the mistakes": lambda c: forged(
        c, wrong=0, bounds={k: b(0.0, c.kl, 300, 0.05) for k, b in BOUNDS.items()}
    ),
    "kl": lambda c: forged(c, kl=1.0),
    "bits": lambda c: forged(c, bits={**c.parts, "counts": 0}),
    "n": lambda c: forged(c, n=3000),
    "chance": lambda c: forged(c, chance=0.99),
    "start": lambda c: forged(c, start="0" * 64),
    "delta": lambda c: replace(c, terms=replace(c.terms, delta=0.5)),
    "alternatives": lambda c: replace(c, terms=replace(c.terms, alternatives=4)),
    "seed": lambda c: replace(c, terms=replace(c.terms, seed=7)),
    "grid": lambda c: replace(c, terms=replace(c.terms, grid=c.terms.grid[:1])),
    "projector": lambda c: replace(c, terms=replace(c.terms, projector="dense")),
    "message cut": lambda c: replace(c, message=c.message[:-1]),
    "message longer": lambda c: replace(c, message=c.message + b"\0"),
    "message": lambda c: replace(c, message=bytes([c.message[0] ^ 32]) + c.message[1:]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_fail(name: str, certificate: Certificate) -> None:
    with pytest.raises(CertificateError):
        FORGERIES[name](certificate).verify(DATA)


def test_every_bit_of_the_message_matters(certificate: Certificate) -> None:
    """A flipped bit is damage, or names another network whose figures are not those stated."""
    for i in range(0, certificate.message_bits, 3):
        flipped = bytearray(certificate.message)
        flipped[i // 8] ^= 128 >> i % 8
        try:
            found = replace(certificate, message=bytes(flipped)).verify(DATA)
        except CertificateError:
            continue
        # another network with as many mistakes: then the bound is as true of that one
        assert found.bounds == certificate.bounds


def test_other_data_fail(certificate: Certificate) -> None:
    x, y = DATA
    swapped = torch.cat([x[1:2], x[:1], x[2:]]), torch.cat([y[1:2], y[:1], y[2:]])
    for other in (blobs(300, seed=1), (x + 1e-3, y), (x, 1 - y), (x[:-1], y[:-1]), swapped):
        with pytest.raises(CertificateError, match="data are not those"):
            certificate.verify(other)


def test_damaged_files(certificate: Certificate, tmp_path: Path) -> None:
    file = tmp_path / "c.cert"
    certificate.save(file)
    good = file.read_bytes()
    for at in (len(good) - 1, good.index(b'\\"delta\\": 0.05') + 13, good.index(b"wrong") + 2):
        bad = bytearray(good)
        bad[at] ^= 1
        file.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged, or no certificate"):
            Certificate.load(file)
    terms = replace(certificate.terms, projector="none")
    replace(certificate, terms=terms).save(file)  # with a checksum of its own
    with pytest.raises(ValueError, match="unknown projector"):
        Certificate.load(file)
    for bad_file in (b"", good[: len(good) // 2], b"{}"):
        file.write_bytes(bad_file)
        with pytest.raises(ValueError, match="damaged, or no certificate"):
            Certificate.load(file)
    with pytest.raises(FileNotFoundError):
        Certificate.load(tmp_path / "none.cert")


@pytest.mark.parametrize("projector", sorted(set(PROJECTORS) - {"kronecker"}))
def test_projectors(projector: str) -> None:
    options = replace(OPTIONS, projector=projector, dimensions=(9,))
    found = certify(cnn(norm=True), DATA, options)
    found.verify(DATA)
    assert found.choice["dimension"] == 9


def test_networks_are_certified_in_single_precision() -> None:
    options = replace(OPTIONS, dimensions=(9,), prior="weights")
    x, y = DATA
    found = certify(cnn().double(), (x.double(), y), options)
    assert found.message == certify(cnn(), DATA, options).message
    found.verify(DATA)


def test_batch_statistics_are_not_learned() -> None:
    model = cnn(norm=True)
    model.train()
    for _ in range(3):
        model(DATA[0])  # moves the running statistics towards the data
    found = certify(model, DATA, replace(OPTIONS, dimensions=(9,)))
    norm = found.network()[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert float(norm.running_mean.abs().max()) == 0


def test_transfer_from_given_weights(tmp_path: Path) -> None:
    model = cnn()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    upstream = blobs(600, seed=5)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(upstream[0]), upstream[1]).backward()
        optimiser.step()
    options = replace(OPTIONS, prior="weights", dimensions=(0, 9))
    found = certify(model, DATA, options)
    assert found.choice["dimension"] == 0  # nothing is left to learn
    assert found.message_bits == 8
    assert found.bound < 0.1 < certify(model, DATA, OPTIONS).bound
    assert "transfer" in str(found)
    found.save(tmp_path / "t.cert")
    loaded = Certificate.load(tmp_path / "t.cert")
    loaded.verify(DATA)
    tensors = {name: t + 1 for name, t in found.terms.tensors.items()}
    with pytest.raises(CertificateError):
        replace(found, terms=replace(found.terms, tensors=tensors)).verify(DATA)


def test_a_prior_from_a_part_of_the_data() -> None:
    options = replace(
        OPTIONS, prior="split", split=0.4, dimensions=(0, 4), prior_epochs=30, prior_rate=1e-2
    )
    found = certify(cnn(), DATA, options)
    assert found.figures.n == 180
    assert found.verify(DATA) == found.figures
    # Hoeffding's bound of the prior alone, from the samples it did not see
    first, second = found.terms.parts(300)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(300))
    assert len(first) == 120
    prior = replace(found, message=message.write(message.Message(0), found.terms.code)[0])
    with torch.no_grad():
        error = (prior.network()(DATA[0][second]).argmax(1) != DATA[1][second]).float().mean()
    assert found.prior_hoeffding == pytest.approx(
        float(error) + (torch.tensor(20.0).log() / 360).sqrt().item(), abs=1e-6
    )
    assert "the prior alone" in str(found)
    assert "40%" in str(found)
    assert found.bound > 0.5 * found.prior_hoeffding
    assert certify(cnn(), DATA, replace(OPTIONS, dimensions=(4,))).prior_hoeffding is None


def test_a_network_that_cannot_be_rebuilt_has_to_be_given(tmp_path: Path) -> None:
    found = certify(Own(), DATA, replace(OPTIONS, dimensions=(9,)))
    found.save(tmp_path / "own.cert")
    loaded = Certificate.load(tmp_path / "own.cert")
    with pytest.raises(ValueError, match="give the network: model="):
        loaded.verify(DATA)
    with pytest.raises(TypeError, match=r"torch.nn.Module"):
        loaded.verify(DATA, "own")  # type: ignore[arg-type]
    assert loaded.verify(DATA, Own()) == found.figures
    assert isinstance(loaded.network(Own()), Own)
    with pytest.raises(CertificateError, match="centred on another network"):
        loaded.verify(DATA, symlearn.models.small_cnn(2, width=2))


def test_a_fit_of_a_network_that_cannot_be_rebuilt() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_relaxed(boundary="keep")

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out

    result = symlearn.fit(Whole(), DATA, symlearn.FitConfig(epochs=1, seed=0, progress=False))
    found = certify(result, DATA, replace(OPTIONS, dimensions=(9,)))
    assert found.terms.architecture is None
    assert found.verify(DATA, result.model) == found.figures
    with pytest.raises(ValueError, match="with the paths"):
        found.verify(DATA, cnn())


def test_the_collapsed_network_of_a_fit(tmp_path: Path) -> None:
    relaxed = tiny_relaxed(boundary="keep")
    result = symlearn.fit(relaxed, DATA, symlearn.FitConfig(epochs=2, seed=0, progress=False))
    found = certify(result, DATA, OPTIONS)
    assert found.parts["structure"] == 4  # conv and ffc in two layers
    plain = found.network()
    assert [type(m) for m in plain.modules()] == [type(m) for m in result.collapse().modules()]
    found.save(tmp_path / "fit.cert")
    Certificate.load(tmp_path / "fit.cert").verify(DATA)
    assert "paths" in str(found)
    # with other paths on it is another network, or none that the terms know
    said = message.read(found.message, found.terms.code)
    other = replace(said, structure=tuple(not on for on in said.structure))
    with pytest.raises(CertificateError):
        replace(found, message=message.write(other, found.terms.code)[0]).verify(DATA)
    with pytest.raises(ValueError, match="result of the fit"):
        certify(result.collapse(), DATA, OPTIONS)
    transferred = certify(result.collapse(), blobs(300, seed=9), replace(OPTIONS, prior="weights"))
    assert transferred.parts["structure"] == 0
    assert isinstance(symlearn.collapse_report(result.collapse()), CollapseReport)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prior": "random"}, r"prior is 'random'; choose one of \['fresh'"),
        ({"projector": "fastfood"}, "choose one of"),
        ({"bound": "vc"}, "'catoni'"),
        ({"dimensions": ()}, "dimensions is"),
        ({"dimensions": (5, 5)}, "each once"),
        ({"dimensions": (-1,)}, "0 or more"),
        ({"levels": (0,)}, "1 or more"),
        ({"quantise_rates": (0.0,)}, "positive numbers"),
        ({"inits": ("median",)}, "uniform"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"split": 0.0}, "split is 0.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_bad_options(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CertifyConfig(**options)  # type: ignore[arg-type]


def test_lists_are_as_good_as_tuples() -> None:
    given = CertifyConfig(dimensions=[9], inits=["uniform"])  # type: ignore[arg-type]
    assert given == CertifyConfig(dimensions=(9,), inits=("uniform",))


def test_all_bad_options_at_once() -> None:
    with pytest.raises(ValueError, match="prior is 'x'.*levels is.*delta is 2"):
        CertifyConfig(prior="x", levels=(), delta=2)


def test_bad_data_and_networks() -> None:
    x, y = DATA
    with pytest.raises(TypeError, match="torch.nn.Module"):
        certify("net", DATA, OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class"):
        certify(cnn(), (x, y.float()), OPTIONS)
    with pytest.raises(ValueError, match="NaN"):
        certify(cnn(), (x * float("nan"), y), OPTIONS)
    with pytest.raises(ValueError, match="name 5 classes"):
        certify(cnn(), (x, y + 3), OPTIONS)
    with pytest.raises(ValueError, match="does not fit"):
        # at once, not after a million epochs in the first subspace
        certify(cnn(), DATA, replace(OPTIONS, dimensions=(9, 10_000), epochs=10**6))
    with pytest.raises(ValueError, match="smaller"):
        certify(cnn(), DATA, replace(OPTIONS, learning_rate=1e30))
    with pytest.raises(ValueError, match="leaves a part empty"):
        certify(cnn(), (x[:3], y[:3]), replace(OPTIONS, prior="split", split=0.01))
    with pytest.raises(ValueError, match="parameters"):
        certify(nn.Flatten(), DATA, OPTIONS)

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.by * x

    with pytest.raises(ValueError, match=r"5\.by"):
        certify(nn.Sequential(*cnn(), Scale()), DATA, OPTIONS)

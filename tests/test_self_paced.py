"""Self-paced weights: cases by hand of self_paced.md section 8, closed forms against a search, pace against numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nocobench.methods.backbones import Towers
from nocobench.methods.contract import Backbone, BoundNetwork, Budget, Spec, StepOutput, batch_from
from nocobench.methods.optim import Optimizer
from nocobench.methods.self_paced import SelfPaced, pace_weight
from nocobench.protocols.contract_checks import Trial, small_protocol
from nocobench.protocols.drivers import Tables
from nocobench.protocols.protocol import Grants
from torch import Tensor

N, SIZE, EPOCHS = 60, 8, 10
PAPER = SelfPaced.Params()
SPEC = Spec(N, N, 5, 5, False, Backbone("mlp", 7, 4, False, 5.0), Budget(EPOCHS, SIZE, Optimizer()))


class Rate:
    """A run that tells a nominal noise rate, or none."""

    def __init__(self, rate: float | None) -> None:
        self.noise_rate = rate


def method(**changes: Any) -> SelfPaced:
    return SelfPaced(replace(PAPER, **changes), SPEC)


def data() -> tuple[Any, BoundNetwork]:
    generator = torch.Generator().manual_seed(0)
    images, captions = (torch.randn(N, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Towers(SPEC).double().eval()
    return Tables(images, captions, {"image_of_pair": torch.arange(N)[None]}).of_run(0), BoundNetwork(
        module, dict(module.named_parameters())
    )


def step(params: SelfPaced, pace: float, update: str = "train") -> tuple[StepOutput, list[Tensor]]:
    train, net = data()
    state = {"pace": torch.tensor(pace, dtype=torch.float64)}
    out = params.loss({"net": net}, {"all": batch_from(train, torch.arange(SIZE), None)}, state, update)
    return out, list(torch.autograd.grad(sum(out.loss.values()), list(net.params.values())))


def losses(noisy: int = 20) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    return np.concatenate([np.abs(generator.normal(0.8, 0.3, N - noisy)), generator.normal(5.0, 0.6, noisy)])


def partition(
    params: SelfPaced, values: np.ndarray, epoch: int, rate: float | None = None, mismatched: float = 9.0
) -> Any:
    train, net = data()
    state = params.state(train, {"net": net}, Rate(rate))  # type: ignore[arg-type]
    signals = {"loss": torch.from_numpy(values), "mismatched": torch.full((N,), mismatched)}
    return params.partition({"net": net}, train, signals, state, epoch)


def test_weights_by_hand() -> None:
    """l = (0, 1, 2, 4), gamma = 2."""
    given = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert pace_weight(given, 2.0, "linear").tolist() == [1, 0.5, 0, 0]
    assert pace_weight(given, 2.0, "hard").tolist() == [1, 1, 1, 0]
    weight = pace_weight(given, 2.0, "linear")
    assert float((weight * given).sum() / weight.sum().clamp(min=1)) == pytest.approx(1 / 3)
    # zeta = 1/2: ln(l + 1/2) / ln(1/2) = 1 at l = 0, 0 at l = 1/2.
    expected = [1, math.log(0.75) / math.log(0.5), 0, 0]
    assert pace_weight(torch.tensor([0.0, 0.25, 0.5, 0.7]), 0.5, "log").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["hard", "linear", "log"])
@pytest.mark.parametrize("pace", [0.2, 0.6, 0.9])
def test_weights_minimise_their_objective(kind: str, pace: float) -> None:
    """Against a search over w in [0, 1] of w l + R(w, gamma)."""
    w, zeta = np.linspace(0, 1, 20001), 1 - pace
    penalty = {
        "hard": -pace * w,
        "linear": pace * (w**2 / 2 - w),
        "log": zeta * w - zeta**w / math.log(zeta),
    }[kind]
    for loss in (0.01, 0.13, 0.45, 0.7, 1.6):
        best = w[np.argmin(w * loss + penalty)]
        ours = float(pace_weight(torch.tensor([loss], dtype=torch.float64), pace, kind))
        assert ours == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("kind", ["hard", "linear", "log"])
def test_weights_are_bounded_and_fall(kind: str) -> None:
    given = torch.cat([torch.tensor([-1e-7, 0.0]), torch.rand(50).sort().values * 3])
    for pace in (0.0, 1e-9, 0.5, 1.0, 7.0):
        weight = pace_weight(given, pace, kind)
        assert bool(weight.isfinite().all())
        assert 0 <= float(weight.min()) <= float(weight.max()) <= 1
        assert bool((weight.diff() <= 0).all())


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown weights 'mixture'; known: hard, linear, log"):
        pace_weight(torch.ones(2), 1.0, "mixture")


def test_objective_and_gradient() -> None:
    """The weights enter as constants; normalised by max(1, sum w), by B, or made binary."""
    train, net = data()
    batch = batch_from(train, torch.arange(SIZE), None)
    logits, target = net.logits(batch.images, batch.texts), torch.arange(SIZE)
    cross_entropy = torch.nn.functional.cross_entropy
    l = sum(cross_entropy(x, target, reduction="none") for x in (logits, logits.mT)) / 2  # noqa: E741
    pace = float(l.detach().median()) / 0.9
    w = np.maximum(0, 1 - l.detach().numpy() / pace)
    assert 0 < (w > 0).sum() < SIZE
    for changes, weight, scale in (
        ({}, w, max(1.0, w.sum())), ({"normalise": "batch"}, w, SIZE), ({"binary": True}, (w > 0) * 1.0, (w > 0).sum()),
    ):  # fmt: skip
        out, gradient = step(method(**changes), pace)
        expected = (torch.from_numpy(weight) * l).sum() / scale
        torch.testing.assert_close(sum(out.loss.values()), expected, rtol=1e-10, atol=0)
        np.testing.assert_allclose(out.weight, weight, rtol=1e-10)
        parts = torch.autograd.grad(expected, list(net.params.values()), retain_graph=True)
        torch.testing.assert_close(gradient, list(parts), rtol=1e-8, atol=1e-12)
    lone = float(l.detach().min()) * 1.25  # w = 0.2 for the easiest pair: a sum below 1 does not scale the loss up
    out, _ = step(method(weights="linear"), lone)
    assert out.weight is not None
    assert 0 < float(out.weight.sum()) < 1
    torch.testing.assert_close(out.loss["weighted"], (out.weight * l).sum(), rtol=1e-10, atol=0)
    warm, _ = step(method(), pace, "warm up")
    torch.testing.assert_close(warm.loss["contrastive"], l.mean(), rtol=1e-10, atol=0)
    scaled, _ = step(method(weights="log"), 0.9)
    np.testing.assert_allclose(
        scaled.weight, pace_weight(l.detach() / math.log(SIZE), 0.9, "log"), rtol=1e-10, err_msg="l in units of ln B"
    )


@pytest.mark.parametrize(
    "changes", [{}, {"weights": "hard"}, {"weights": "log"}, {"normalise": "batch"}, {"binary": True}]
)
def test_no_pair_within_the_pace(changes: dict[str, Any]) -> None:
    out, gradient = step(method(**changes), 1e-9)
    assert float(out.loss["weighted"].detach()) == 0
    assert all(bool((part == 0).all()) for part in gradient)


def test_quantile_rises_until_half_of_the_epochs() -> None:
    """10 epochs, 2 of warm-up: T_pace = 5; q = 0.3, then steps of a third of the way to q_max."""
    this = method()
    assert [this.quantile_at(epoch, 0.9) for epoch in range(2, 8)] == pytest.approx([0.3, 0.5, 0.7, 0.9, 0.9, 0.9])
    assert [this.quantile_at(epoch, 0.2) for epoch in (2, 3, 7)] == [0.2, 0.2, 0.2], "q_max below q_0"
    assert method(warmup_epochs=6).quantile_at(6, 0.9) == 0.9, "warm-up beyond T_pace"
    assert method(warmup_epochs=0).quantile_at(0, 0.9) == 0.3


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.456, 1.0])
def test_pace_is_numpys_quantile(quantile: float) -> None:
    values = torch.from_numpy(losses())
    expected = np.quantile(losses(), quantile)
    assert method().pace(values, quantile) == pytest.approx(expected / 0.9)
    assert method(weights="hard").pace(values, quantile) == pytest.approx(expected)
    assert method(weights="log").pace(values, quantile) == pytest.approx(expected / math.log(SIZE))
    assert method(fixed_pace=1.5).pace(values, quantile) == 1.5


def test_the_pair_at_the_quantile_keeps_a_weight_of_a_tenth() -> None:
    values = torch.from_numpy(losses())
    weight = pace_weight(values.sort().values, method().pace(values, 30 / (N - 1)), "linear")
    assert float(weight[30]) == pytest.approx(0.1)


def test_largest_quantile() -> None:
    """A third of the pairs has a high loss; the estimate is the mass of that component."""
    late = EPOCHS - 1
    found = partition(method(), losses(), late)
    assert found.facts["estimated_noise_rate"] == pytest.approx(1 / 3, abs=0.02)
    assert found.facts["quantile"] == 1 - found.facts["estimated_noise_rate"]
    assert float(found.state["pace"]) == pytest.approx(np.quantile(losses(), found.facts["quantile"]) / 0.9)
    assert found.clean_probability["net"].round().sum() == N - 20
    assert partition(method(rejection="none"), losses(), late).facts["quantile"] == 1
    assert partition(method(rejection="oracle"), losses(), late, rate=0.4).facts["quantile"] == pytest.approx(0.6)
    equal = partition(method(), np.full(N, 2.0), late)
    assert (equal.facts["estimated_noise_rate"], equal.facts["quantile"]) == (0, 1)
    assert bool((equal.clean_probability["net"] == 1).all())


def test_guard_is_an_option() -> None:
    """Sides at 0.8 and 5: ratio 4.2 / (m_mis - 0.8), about 0.1 for m_mis = 43."""
    for limit, mismatched, fires in ((0.25, 43.0, 1), (0.25, 9.0, 0), (0.0, 43.0, 0)):
        found = partition(method(guard_ratio=limit), losses(), 2, mismatched=mismatched)
        assert found.facts["guard_ratio"] == pytest.approx(4.2 / (mismatched - 0.8), rel=0.1)
        assert found.facts["no_noise_found"] == float(found.state["no_noise_found"]) == fires
        assert found.facts["quantile"] == pytest.approx(0.3)


def test_nothing_happens_in_the_warm_up() -> None:
    this = method()
    assert [this.observes(epoch) for epoch in range(4)] == [False, False, True, True]
    assert partition(this, losses(), 1).state == {}
    assert this.passes(1)[0].updates[0].name == "warm up"  # type: ignore[union-attr]
    assert this.passes(2)[0].updates[0].name == "train"  # type: ignore[union-attr]


def test_only_the_oracle_variant_asks_for_the_rate() -> None:
    needs = {name: SelfPaced(params, SPEC).needs_now() for name, params in SelfPaced.variants.items()}
    assert needs.pop("oracle_rate") == {"noise-rate"}
    assert set(needs.values()) == {frozenset()}
    trial = Trial("self_paced", "oracle_rate", small_protocol(grants=Grants()))
    records = trial.run(trial.cells[:1])
    assert {record.status for record in records.values()} == {"not_applicable"}


def test_the_oracle_variant_is_given_the_rate_of_its_run() -> None:
    trial = Trial("self_paced", "oracle_rate", small_protocol())
    for record in trial.run([trial.cells[0], trial.cells[2]]).values():
        assert record.outcome is not None
        assert record.outcome.facts["quantile"] == pytest.approx(1 - record.cell.rate)

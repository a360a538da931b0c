"""RSHNL: equations by hand and against plain loops, the table of rshnl.md section 4, variants, and items that must not count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Pass, Spec, StepOutput
from nocobench.methods.label_losses import contrastive_hashing, log_label_probability, robust_shape
from nocobench.methods.optim import Optimizer, Schedule
from nocobench.methods.registry import MethodError
from nocobench.methods.rshnl import Rshnl, difficulty_window
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.contract_checks import Trial, cells_of, small_label_protocol
from nocobench.protocols.drivers import Tables
from nocobench.protocols.protocol import DatasetChoice, NoiseChoice
from torch import Tensor

N, SIZE, K, BITS = 12, 6, 4, 16
SPEC = Spec(
    N, N, 5, 3, False, Backbone("hashing", 32, 16, False), Budget(10, SIZE, Optimizer()), n_classes=K, bits=BITS
)
VARIANTS = sorted(Rshnl.variants)
SELF_PACED = [name for name in VARIANTS if name not in ("rshnl-3", "label-free")]


class Seeded:
    """A run that gives generators and nothing else."""

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=len(purpose)))


def method(variant: str = "released", **changes: Any) -> Rshnl:
    return Rshnl(replace(Rshnl.variants[variant], **changes), SPEC)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(seed: int, rows: int) -> Tensor:
    return torch.nn.functional.normalize(random(seed, rows, BITS), dim=-1)


def one_hot(*classes: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[list(classes)]


def modules(this: Rshnl, seed: int = 0) -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: build().double() for name, build in this.networks().items()}


def bound(parts: Mapping[str, torch.nn.Module]) -> dict[str, BoundNetwork]:
    return {name: BoundNetwork(module, dict(module.named_parameters())) for name, module in parts.items()}


def state_of(this: Rshnl) -> dict[str, Tensor]:
    train = Tables(random(0, N, 5), random(1, N, 3), {"image_of_pair": torch.arange(N)[None]}).of_run(0)
    return dict(this.state(train, {}, Seeded()))  # type: ignore[arg-type]


def batch(labels: Tensor, valid: Tensor | None = None, text_labels: Tensor | None = None) -> Batch:
    index = torch.arange(len(labels))
    images, texts = random(0, N, 5)[: len(labels)], random(1, N, 3)[: len(labels)]
    return Batch(index, images, texts, index, valid, None, labels, labels if text_labels is None else text_labels)


def step(this: Rshnl, items: Batch, update: str) -> tuple[StepOutput, dict[str, Tensor]]:
    """What ``loss`` says, and the gradients by network and parameter."""
    nets = bound(modules(this))
    out = this.loss(nets, {"all": items}, state_of(this), update)
    names = [f"{network}.{key}" for network, net in nets.items() for key in net.params]
    params = [value for net in nets.values() for value in net.params.values()]
    found = torch.autograd.grad(total(out), params, allow_unused=True)
    return out, {name: torch.zeros(()) if g is None else g for name, g in zip(names, found, strict=True)}


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    return sum(out.loss.values(), start=torch.zeros(()))


LABELS = one_hot(0, 1, 2, 3, 0, 1)


# phi_r


@given(st.floats(1e-6, 1), st.floats(1e-3, 1))
def test_shape_function(v: float, r: float) -> None:
    log_v = torch.tensor(v, dtype=torch.float64).log().requires_grad_()
    value = robust_shape(log_v, r)
    (slope,) = torch.autograd.grad(value, log_v)
    assert float(value.detach()) == pytest.approx((1 - r) * (1 - v**r) / r + r * (1 - v), abs=1e-9)
    assert float(slope) / v == pytest.approx(-((1 - r) * v ** (r - 1) + r), rel=1e-9)


def test_shape_function_at_its_ends() -> None:
    log_v = torch.tensor([0.0, math.log(0.3), -1e30], dtype=torch.float64)
    assert robust_shape(log_v, 0.0)[:2].tolist() == pytest.approx([0, -math.log(0.3)])
    assert robust_shape(log_v, 1e-9)[:2].tolist() == pytest.approx([0, -math.log(0.3)])
    assert robust_shape(log_v, 1.0).tolist() == pytest.approx([0, 0.7, 1])
    assert robust_shape(log_v, 0.01).tolist()[::2] == pytest.approx([0, (1e-4 - 0.01 + 1) / 0.01])


# L_C


def contrastive_by_loops(images: np.ndarray, texts: np.ndarray, tau: float, r: float, with_self: bool) -> list[float]:
    sides, size = (images, texts), len(images)
    losses = [0.0] * size
    for m in range(2):
        for i in range(size):
            to = np.array([[math.exp(sides[m][i] @ side[z] / tau) for z in range(size)] for side in sides])
            reached = to[1 - m, i] + (to[m, i] if with_self else 0)
            p = reached / (to.sum() - (0 if with_self else to[m, i]))
            losses[i] += (1 - r) * (1 - p**r) / r + r * (1 - p)
    return losses


@pytest.mark.parametrize("with_self", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_contrastive_loss_against_loops(size: int, with_self: bool) -> None:
    images, texts = units(2, size), units(3, size)
    found = contrastive_hashing(images, texts, 0.7, 0.05, with_self=with_self)
    expected = contrastive_by_loops(images.numpy(), texts.numpy(), 0.7, 0.05, with_self)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_contrastive_loss_by_hand() -> None:
    """Two pairs of equal codes at right angles, tau = 1: p = e / (e + 2), with the own similarity 2e / (2e + 2)."""
    codes = torch.eye(2, dtype=torch.float64)
    assert contrastive_hashing(codes, codes, 1.0, 1.0).tolist() == pytest.approx([2 * (1 - math.e / (math.e + 2))] * 2)
    kept = contrastive_hashing(codes, codes, 1.0, 1.0, with_self=True)
    assert kept.tolist() == pytest.approx([2 * (1 - math.e / (math.e + 1))] * 2)


@pytest.mark.parametrize("with_self", [False, True])
def test_filled_up_pairs_are_no_negatives(with_self: bool) -> None:
    images, texts = units(2, 5).requires_grad_(), units(3, 5).requires_grad_()
    valid = torch.tensor([True, False, True, True, False])
    padded = contrastive_hashing(images, texts, 0.5, 0.01, valid, with_self)
    smaller = contrastive_hashing(images[valid], texts[valid], 0.5, 0.01, None, with_self)
    torch.testing.assert_close(padded[valid], smaller, rtol=1e-12, atol=0)
    assert padded[~valid].tolist() == [0, 0]
    for one, other in zip(
        torch.autograd.grad(padded.sum(), (images, texts)),
        torch.autograd.grad(smaller.sum(), (images, texts)),
        strict=True,
    ):
        assert bool((one[~valid] == 0).all())
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


# v, l, w


def test_label_probability_sums_over_labels() -> None:
    """Codes on an axis, centres (1, 0), (0, 1), (-1, 0): softmax of (1, 0, -1)."""
    centers = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    labels = torch.tensor([[1.0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]])
    found = log_label_probability(torch.tensor([[1.0, 0]]).expand(4, 2), centers, labels).exp()
    p = np.exp([1, 0, -1]) / np.exp([1, 0, -1]).sum()
    assert found.tolist() == pytest.approx([p[0], p[0] + p[2], 1, 0], abs=1e-6)
    cold = log_label_probability(torch.tensor([[1.0, 0]]), centers, labels[:1], 0.25).exp()
    assert float(cold) == pytest.approx(math.exp(4) / (math.exp(4) + 1 + math.exp(-4)))


def test_difficulty_uses_the_labels_of_each_modality() -> None:
    this, centers = method(), units(4, K)
    images, texts = units(5, 2), units(6, 2)
    items = batch(one_hot(0, 1), text_labels=one_hot(2, 3))
    r = this.params.r
    probabilities = [(h @ centers.T).softmax(1).numpy() for h in (images, texts)]
    v = np.array([[probabilities[0][0, 0], probabilities[1][0, 2]], [probabilities[0][1, 1], probabilities[1][1, 3]]])
    expected = ((1 - r) * (1 - v**r) / r + r * (1 - v)).sum(1)
    np.testing.assert_allclose(this.difficulty(images, texts, centers, items), expected, rtol=1e-10)


def test_only_the_paper_divides_by_the_temperature() -> None:
    images, texts, centers = units(5, 2), units(6, 2), units(4, K)
    items = batch(one_hot(0, 1))
    released, paper = (
        method(name, tau=0.2).difficulty(images, texts, centers, items) for name in ("released", "paper")
    )
    warm = method(tau=1.0).difficulty(images, texts, centers, items)
    assert released.tolist() == warm.tolist()
    expected = method().difficulty(images / 0.2, texts / 0.2, centers, items)
    torch.testing.assert_close(paper, expected, rtol=1e-12, atol=0)


def test_item_without_labels_costs_most_and_teaches_nothing() -> None:
    """l = 2 phi_r(0) = 2 (r^2 - r + 1) / r = 198.02; its weight is 0, also with gamma at the paper's bound."""
    this = method(gamma=198.0)
    labels = LABELS.clone()
    labels[2] = 0
    for update in ("warm-up", "self-paced"):
        out, gradients = step(this, batch(labels), update)
        assert out.sample_loss is not None
        assert float(out.sample_loss[2].detach()) == pytest.approx(198.02, abs=1e-3)
        assert all(bool(g.isfinite().all()) for g in gradients.values())
    assert out.weight is not None
    assert (out.weight == 0).tolist() == [False, False, True, False, False, False]
    images = units(5, 1).requires_grad_()
    difficulty = this.difficulty(images, units(6, 1), units(4, K), batch(torch.zeros(1, K, dtype=torch.float64)))
    assert bool((torch.autograd.grad(difficulty.sum(), images)[0] == 0).all())


def test_weights_by_hand() -> None:
    """gamma = 2: w = 1 - l/2; w l + gamma (w^2/2 - w) = 0 + (1 - 2), 0.5 + 2 (0.125 - 0.5), 0, 0."""
    difficulty = torch.tensor([0.0, 1.0, 2.0, 5.0])
    weight, paced = method(gamma=2.0).self_paced(difficulty)
    assert weight.tolist() == [1, 0.5, 0, 0]
    assert paced.tolist() == [-1, -0.25, 0, 0]
    weight, paced = method("rshnl-s", gamma=2.0).self_paced(difficulty)
    assert weight.tolist() == [1, 1, 0, 0]
    assert paced.tolist() == [-2, -1, 0, 0]


@given(st.lists(st.floats(0, 200), min_size=1, max_size=20), st.floats(0.1, 300))
def test_weights_minimise_their_objective(difficulties: list[float], gamma: float) -> None:
    difficulty = torch.tensor(difficulties, dtype=torch.float64)
    for name, penalty in (("released", lambda w: gamma * (w * w / 2 - w)), ("rshnl-s", lambda w: -gamma * w)):
        weight, paced = method(name, gamma=gamma).self_paced(difficulty)
        assert 0 <= float(weight.min()) <= float(weight.max()) <= 1
        others = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
        assert bool((paced <= others * difficulty + penalty(others) + 1e-9 * gamma).all())


@pytest.mark.parametrize("variant", SELF_PACED)
def test_gradient_is_the_weighted_mean_of_the_gradients(variant: str) -> None:
    """Weights are constants, the mean is over the whole batch, and the regulariser has no gradient (3.4)."""
    this = method(variant, gamma=2 * math.log(K) if variant != "rshnl-d" else 200.0)
    items, nets = batch(LABELS), bound(modules(this))
    out = this.loss(nets, {"all": items}, state_of(this), "self-paced")
    assert out.weight is not None
    assert out.sample_loss is not None
    assert float(out.weight.max()) > 0
    assert not out.weight.requires_grad
    params = [value for net in nets.values() for value in net.params.values()]
    given_weight = torch.from_numpy(out.weight.numpy().copy())
    images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
    contrastive = contrastive_hashing(images, texts, 1.0, 0.01, with_self=this.params.with_self).mean()
    expected = (given_weight * out.sample_loss).sum() / SIZE + this.alpha * contrastive
    for one, other in zip(
        torch.autograd.grad(total(out), params, retain_graph=True), torch.autograd.grad(expected, params), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("variant", SELF_PACED)
def test_nothing_selected_leaves_the_contrastive_loss(variant: str) -> None:
    out, gradients = step(method(variant, gamma=1e-3, alpha=0.0), batch(LABELS), "self-paced")
    assert out.weight is not None
    assert bool((out.weight == 0).all())
    assert float(total(out).detach()) == 0
    assert all(bool((g == 0).all()) for g in gradients.values())


def test_scaled_variant_gives_every_item_the_mean_weight() -> None:
    valid = torch.tensor([True] * 4 + [False] * 2)
    items = batch(LABELS, valid)
    selective, _ = step(method(gamma=3.0), items, "self-paced")
    scaled, _ = step(method("rshnl-3-scaled", gamma=3.0), items, "self-paced")
    assert selective.weight is not None
    assert scaled.weight is not None
    assert float(selective.weight[:4].std()) > 0
    torch.testing.assert_close(scaled.weight, selective.weight[:4].mean().expand(SIZE))
    assert scaled.sample_loss is not None
    assert isinstance(scaled.loss, dict)
    torch.testing.assert_close(scaled.loss["self_paced"], (scaled.weight * scaled.sample_loss)[:4].mean())


@pytest.mark.parametrize("update", ["warm-up", "self-paced"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_filled_up_batch_is_the_smaller_batch(variant: str, update: str) -> None:
    this = method(variant, gamma=3.0)
    padded, padded_gradients = step(this, batch(LABELS, torch.tensor([True] * 4 + [False] * 2)), update)
    smaller, smaller_gradients = step(this, batch(LABELS[:4]), update)
    torch.testing.assert_close(total(padded), total(smaller), rtol=1e-11, atol=0)
    torch.testing.assert_close(padded_gradients, smaller_gradients, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_runs_side_by_side_are_runs_alone(variant: str) -> None:
    this = method(variant, gamma=3.0)
    optimizer = Optimizer("adam", 1e-2, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant"))
    this.optimizers = lambda: dict.fromkeys(this.networks(), optimizer)  # type: ignore[method-assign]
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS.roll(1, 1)])

    def trained(runs: list[int]) -> dict[str, dict[str, Tensor]]:
        tables = Tables(
            random(0, SIZE, 5),
            random(1, SIZE, 3),
            {"image_of_pair": torch.arange(SIZE).expand(len(runs), SIZE), "labels": labels[runs]},
        )
        parts = [modules(this, seed=run) for run in runs]
        driver = BatchedDriver(this, {name: [part[name] for part in parts] for name in parts[0]}, tables)
        driver.start_states([Seeded() for _ in runs])  # type: ignore[misc]
        index = torch.arange(SIZE).expand(1, len(runs), SIZE)
        plan = PassPlan({"all": Draws(index, None, np.ones((1, len(runs)), bool))}, np.ones(len(runs), dtype=int))
        for epoch in (0, 9):
            (this_pass,) = this.passes(epoch)
            assert isinstance(this_pass, Pass)
            driver.step(this_pass.updates[0], plan, 0, {name: [1.0] * len(runs) for name in driver.modules})
        return driver.params

    together = trained([0, 1, 2])
    for run in range(3):
        alone = trained([run])
        for network, params in together.items():
            for key, value in params.items():
                torch.testing.assert_close(value[run], alone[network][key][0], rtol=1e-9, atol=1e-12)


# gamma, alpha, schedule


@pytest.mark.parametrize(
    ("n_classes", "gamma", "floor", "uniform", "largest"),
    [(10, 3, 2.723, 4.525, 0.092), (21, 5, 4.092, 5.956, 0.182), (100, 8, 7.044, 8.931, 0.120), (200, 9, 8.357, 10.238, 0.071)],
)  # fmt: skip
def test_table_of_section_4(n_classes: int, gamma: float, floor: float, uniform: float, largest: float) -> None:
    """The page rounds two of the numbers twice: 0.11946 is printed as 0.120, 10.23750 as 10.238."""
    low, high = difficulty_window(n_classes, 0.01)
    assert (low, high, 1 - low / gamma) == pytest.approx((floor, uniform, largest), abs=5.5e-4)
    assert low < gamma < high
    best = math.e / (math.e + (n_classes - 1) * math.exp(-1 / (n_classes - 1)))
    for v, found in ((best, low), (1 / n_classes, high)):
        assert found == pytest.approx(2 * (0.99 * (1 - v**0.01) / 0.01 + 0.01 * (1 - v)), rel=1e-12)


def test_floor_is_reached_by_codes_on_simplex_corners() -> None:
    corners = torch.nn.functional.normalize(torch.eye(K, dtype=torch.float64) - 1 / K, dim=-1)
    items = batch(one_hot(*range(K)))
    low, high = difficulty_window(K, 0.01)
    assert method().difficulty(corners, corners, corners, items).tolist() == pytest.approx([low] * K)
    nowhere = torch.zeros_like(corners)
    assert method().difficulty(nowhere, nowhere, corners, items).tolist() == pytest.approx([high] * K)


def test_one_class_is_refused() -> None:
    with pytest.raises(MethodError, match="compares classes but the data set has 1; take one with at least two"):
        difficulty_window(1, 0.01)


@pytest.mark.parametrize(
    ("dataset", "gamma", "alpha"),
    [("wikipedia", 3, 0.05), ("xmedia", 5, 0.10), ("inria", 8, 0.30), ("xmedianet", 9, 0.05)],
)
def test_constants_of_the_authors(dataset: str, gamma: float, alpha: float) -> None:
    this = Rshnl(Rshnl.Params(), replace(SPEC, dataset=dataset))
    assert (this.gamma, this.alpha) == (gamma, alpha)
    assert Rshnl(Rshnl.variants["rshnl-2"], replace(SPEC, dataset=dataset)).alpha == 0
    assert Rshnl(Rshnl.variants["rshnl-d"], replace(SPEC, dataset=dataset)).gamma == 200


@pytest.mark.parametrize("multi_label", [False, True])
def test_gamma_of_other_data_is_two_fifths_into_the_window_and_recorded(multi_label: bool) -> None:
    this = Rshnl(Rshnl.Params(), replace(SPEC, dataset="else", multi_label=multi_label))
    low, high = difficulty_window(K, 0.01)
    assert this.gamma == pytest.approx(0.6 * low + 0.4 * high)
    facts = this.partition({}, None, {}, {}, 0).facts  # type: ignore[arg-type]
    assert facts == {"gamma": this.gamma, "l_floor": low, "l_unif": high, "alpha": 0.1}
    assert Rshnl(Rshnl.Params(gamma=1.5, alpha=0.7), SPEC).gamma == 1.5
    assert Rshnl(Rshnl.Params(gamma=1.5, alpha=0.7), SPEC).alpha == 0.7


def updates(this: Rshnl) -> list[str]:
    found = []
    for epoch in range(this.spec.epochs):
        (only,) = this.passes(epoch)
        assert isinstance(only, Pass)
        assert (only.draws, only.last_batch) == ({"all": SIZE}, "keep")
        assert [update.train[0] for update in only.updates] == ["net"]  # under this name weights are logged
        found.append(only.updates[0].name)
    return found


def test_when_self_pacing_begins() -> None:
    assert updates(method()) == ["warm-up"] * 5 + ["self-paced"] * 5
    assert updates(method("rshnl-1")) == ["self-paced"] * 10
    assert updates(method("rshnl-3")) == ["warm-up"] * 10
    short = Rshnl(Rshnl.Params(), replace(SPEC, budget=replace(SPEC.budget, epochs=3)))
    assert updates(short) == ["warm-up", "warm-up", "self-paced"]


# centres


def test_learnt_centres_are_unit_rows_of_a_network() -> None:
    this = method()
    parts = modules(this)
    assert this.passes(0)[0].updates[0].train == ("net", "centers")  # type: ignore[union-attr]
    centers = bound(parts)["centers"].centers()
    assert centers.shape == (K, BITS)
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(K, dtype=torch.float64))
    shapes = [tuple(value.shape) for value in parts["centers"].parameters()]
    assert shapes == [(32, K), (32,), (32, 32), (32,), (BITS, 32), (BITS,)]
    last = parts["centers"].head[-1].weight  # type: ignore[union-attr, index]
    # Uniform in +-1/sqrt(K) = +-0.5, not in +-1/sqrt(32) = +-0.18.
    assert 0.45 < float(last.detach().abs().max()) <= 0.5
    assert this.state(None, {}, Seeded()) == {}  # type: ignore[arg-type]


def test_centres_of_the_paper_are_binary_and_fixed() -> None:
    this = method("paper")
    centers = state_of(this)["centers"]
    assert set(this.networks()) == {"net"}
    assert this.passes(0)[0].updates[0].train == ("net",)  # type: ignore[union-attr]
    assert centers.dtype == torch.float64
    assert set(centers.flatten().tolist()) == {-1 / math.sqrt(BITS), 1 / math.sqrt(BITS)}
    assert len({tuple(row) for row in centers.tolist()}) == K
    torch.testing.assert_close(centers, state_of(this)["centers"])
    out, _ = step(this, batch(LABELS), "warm-up")
    assert out.state == {}


def test_gradient_reaches_centres_and_both_heads() -> None:
    _, gradients = step(method(), batch(LABELS), "warm-up")
    for name, gradient in gradients.items():
        assert float(gradient.abs().max()) > 0, name


def test_label_free_variant_never_sees_labels() -> None:
    this = method("label-free")
    assert set(this.networks()) == {"net"}
    blind = replace(batch(LABELS), labels=None, text_labels=None)
    out, _ = step(this, blind, "self-paced")
    nets = bound(modules(this))
    expected = contrastive_hashing(nets["net"].images(blind.images), nets["net"].texts(blind.texts), 1.0, 0.01)
    torch.testing.assert_close(total(out), expected.mean())
    assert out.weight is None
    assert this.partition({}, None, {}, {}, 0).facts == {}  # type: ignore[arg-type]


# whole trainings


def signals(variant: str, signal: str, **changes: Any) -> dict[int, Any]:
    """Summaries by epoch, at half of the labels wrong."""
    protocol = small_label_protocol(**changes)
    trial = Trial("rshnl", variant, protocol)
    (record,) = trial.run(cells_of(protocol, "rshnl", variant, (0.5,), (0,))).values()
    assert record.outcome is not None, record.reason
    return {s.epoch: s for s in record.outcome.signals if (s.signal, s.network) == (signal, "net")}


def test_without_warm_up_every_weight_is_zero_for_ever() -> None:
    """rshnl.md 4.4: the dead start that RSHNL-1 shows."""
    weights = signals("rshnl-1", "weight")
    assert sorted(weights) == [1, 2, 3, 4]
    assert {(s.mean_clean, s.mean_noisy) for s in weights.values()} == {(0, 0)}


def test_weights_prefer_right_labels_after_warm_up() -> None:
    weights = signals("released", "weight")
    assert sorted(weights) == [4], "undefined in the three epochs of warm-up"
    assert weights[4].mean_clean > 5 * weights[4].mean_noisy
    assert weights[4].auc > 0.5
    assert signals("released", "loss")[3].auc > 0.7


def test_items_with_several_labels() -> None:
    protocol = small_label_protocol()
    several = DatasetChoice(name="synthetic", options=protocol.dataset.options | {"labels_per_item": 2.0})
    weights = signals(
        "released", "weight", dataset=several, noise=NoiseChoice(model="multilabel-flip", rates=(0.0, 0.5))
    )
    assert 0 < weights[4].mean_clean < 1

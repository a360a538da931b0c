"""CMMQ, which has no official code: every form by hand and against loops, proxies, selection, items that must not count, options."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.datasets.types import TrainView
from nocobench.methods.cmmq import (
    Cmmq,
    bitwise_cross_entropy,
    centroid_cross_entropy,
    class_proxies,
    hadamard_rows,
    kept_share,
    labelled,
    mean_distance,
    merged_proxies,
    mutual_quantisation,
    proxy_similarity,
    smallest,
    symmetric_divergence,
)
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Pass, Spec, StepOutput, Update
from nocobench.methods.label_losses import label_cross_entropy
from nocobench.methods.nrch import normalised
from nocobench.methods.optim import Optimizer, Schedule
from nocobench.methods.registry import MethodError
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.contract_checks import Trial, small_label_protocol
from nocobench.protocols.drivers import Tables
from nocobench.protocols.protocol import Grants
from torch import Tensor

N, K, BITS = 12, 4, 16
BACKBONE = Backbone("hashing", 32, 16, False)
SPEC = Spec(N, N, 5, 3, False, BACKBONE, Budget(20, N, Optimizer()), n_classes=K, multi_label=True, bits=BITS)
VARIANTS = sorted(Cmmq.variants)


class Cell:
    """A run that tells a nominal noise rate, or none."""

    def __init__(self, rate: float | None = 0.4, seed: int = 0) -> None:
        self.noise_rate, self.seed = rate, seed

    def generator(self, purpose: str) -> np.random.Generator:
        return generator(self.seed + 100 * len(purpose))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def method(variant: str = "paper", epochs: int = 20, **changes: Any) -> Cmmq:
    spec = replace(SPEC, budget=replace(SPEC.budget, epochs=epochs))
    return Cmmq(replace(Cmmq.variants[variant], **changes), spec)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codes(seed: int, rows: int = N) -> Tensor:
    return random(seed, rows, BITS).tanh()


def network(this: Cmmq, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return this.networks()["net"]().double()


def items(valid: Tensor | None = None, seed: int = 0) -> Batch:
    """Items with up to four labels; the third image and the fifth text have none, the sixth item has none at all."""
    drawn = torch.Generator().manual_seed(seed)
    labels, others = ((torch.rand(N, K, generator=drawn) < 0.4).double() for _ in range(2))
    for rows in (labels, others):
        rows[:, 0] = torch.where(rows.any(1), rows[:, 0], 1.0)
    labels[2], others[4], labels[5], others[5] = 0, 0, 0, 0
    index = torch.arange(N)
    return Batch(index, random(seed, N, 5), random(seed + 1, N, 3), index, valid, None, labels, others)


def part(batch: Batch, chosen: Tensor) -> Batch:
    columns = {name: getattr(batch, name)[chosen] for name in ("index", "images", "texts", "image_id", "labels")}
    assert batch.text_labels is not None
    return Batch(**columns, text_labels=batch.text_labels[chosen])


def train_view(batch: Batch) -> TrainView:
    return TrainView(batch.images, batch.texts, batch.index, batch.labels, batch.text_labels)


def state(this: Cmmq, share: float = 1.0, rate: float | None = 0.4) -> dict[str, Any]:
    found = dict(this.state(train_view(items()), {}, Cell(rate)))  # type: ignore[arg-type]
    return found | {"share": torch.tensor(share, dtype=torch.float64)}


def step(this: Cmmq, batch: Batch, before: dict[str, Any]) -> tuple[StepOutput, dict[str, Tensor]]:
    """What ``loss`` says, and its gradients."""
    module = network(this)
    net = BoundNetwork(module, dict(module.named_parameters()))
    out = this.loss({"net": net}, {"all": batch}, before, "train")
    return out, dict(zip(net.params, torch.autograd.grad(joint(out), list(net.params.values())), strict=True))


def joint(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    (loss,) = out.loss.values()
    return loss


# proxies


def test_hadamard_rows_of_four_bits() -> None:
    positive = [[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    assert hadamard_rows(4).tolist() == positive + [[-x for x in row] for row in positive]
    assert [len(hadamard_rows(bits)) for bits in (1, 2, 3, 12, 16, 64)] == [0, 2, 0, 0, 30, 126]


@pytest.mark.parametrize(("n_classes", "bits"), [(10, 16), (24, 16), (30, 16), (80, 64), (126, 64), (1, 2)])
def test_proxies_are_orthogonal_or_opposite(n_classes: int, bits: int) -> None:
    proxies = class_proxies(n_classes, bits, generator(0))
    assert proxies.shape == (n_classes, bits)
    products = proxies @ proxies.T
    assert (np.diag(products) == bits).all()
    assert set(products[~np.eye(n_classes, dtype=bool)]) <= {0.0, -float(bits)}
    assert (proxies.sum(1) == 0).all(), "the constant row is skipped"
    assert (proxies == class_proxies(n_classes, bits, generator(1))).all()


@pytest.mark.parametrize(
    ("n_classes", "bits"), [(80, 16), (80, 32), (31, 16), (10, 24), (2, 15), (3, 3), (1, 5), (2, 1)]
)
def test_random_proxies_are_half_a_code_apart(n_classes: int, bits: int) -> None:
    """More classes than rows, or no power of two; an odd number of bits cannot be halved."""
    proxies = class_proxies(n_classes, bits, generator(0))
    assert set(np.unique(proxies)) <= {-1.0, 1.0}
    assert proxies.shape == (n_classes, bits)
    if n_classes > 1:
        distances = [np.sum(proxies[i] != proxies[j]) for i in range(n_classes) for j in range(i)]
        assert mean_distance(proxies) == pytest.approx(np.mean(distances))
        assert abs(np.mean(distances) - bits / 2) <= max(0.05 * bits / 2, 0.5)
    assert (proxies == class_proxies(n_classes, bits, generator(0))).all()
    if n_classes * bits > 60:
        assert (proxies != class_proxies(n_classes, bits, generator(1))).any()


def test_state_is_of_the_run() -> None:
    this = method()
    first, again, other = (this.state(train_view(items()), {}, Cell(0.2, seed)) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert all(bool((first[name] == again[name]).all()) for name in first)
    assert bool((first["ties"] != other["ties"]).any())
    assert float(first["rate"]) == 0.2
    with pytest.raises(MethodError, match="does not tell; grant noise_rate"):
        state(this, rate=None)


# l_PC


def test_pull_by_hand() -> None:
    """Proxies (1, -1), (-1, 1), (-1, -1) and code (0.3, -0.3): cosines 1, -1, 0; t = 1."""
    this = Cmmq(Cmmq.Params(temperature=1.0), replace(SPEC, n_classes=3, bits=2))
    proxies = torch.tensor([[1.0, -1], [-1, 1], [-1, -1]])
    f = torch.tensor([[0.3, -0.3]]).expand(4, 2)
    torch.testing.assert_close(proxy_similarity(f, proxies)[0], torch.tensor([1.0, -1, 0]))
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    log_sum = math.log(math.e + 1 / math.e + 1)
    found = this.pull(f, labels, {"proxies": proxies})
    assert found.tolist() == pytest.approx([log_sum - 1, log_sum + 1, log_sum, 0])


def test_pull_against_loops() -> None:
    this, batch = method(), items()
    before, f = state(this), codes(3)
    proxies, labels = before["proxies"].numpy(), batch.labels
    assert labels is not None
    found = this.pull(f, labels, before)
    for i in range(N):
        cosines = [float(f[i].numpy() @ p) / (float(f[i].norm()) * math.sqrt(BITS)) for p in proxies]
        scores = [math.exp(c / 0.3) for c in cosines]
        mine = [k for k in range(K) if labels[i, k]]
        expected = -sum(math.log(scores[k] / sum(scores)) for k in mine) / max(len(mine), 1)
        assert float(found[i]) == pytest.approx(expected, rel=1e-11)


def test_merged_proxies_by_hand() -> None:
    """Majority of three, a tie of two, one label, none (ties throughout)."""
    proxies = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    labels = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    ties = torch.tensor([-1.0, 1, -1, 1])
    assert merged_proxies(labels, proxies, ties).tolist() == [
        [1, -1, -1, -1],
        [1, 1, -1, -1],
        [1, -1, -1, 1],
        [-1, 1, -1, 1],
    ]


def test_centroid_form_of_one_label_is_the_softmax_form() -> None:
    f, proxies = codes(0), torch.as_tensor(class_proxies(K, BITS, generator(0)))
    labels = torch.eye(K, dtype=torch.float64)[torch.arange(N) % K]
    found = centroid_cross_entropy(f, merged_proxies(labels, proxies, torch.ones(BITS)), proxies, labels, 0.3)
    torch.testing.assert_close(found, label_cross_entropy(proxy_similarity(f, proxies) / 0.3, labels))


def test_centroid_form_against_loops() -> None:
    f, batch, before = codes(0), items(), state(method())
    labels, proxies = batch.labels, before["proxies"]
    assert labels is not None
    centers = merged_proxies(labels, proxies, before["ties"])
    found = centroid_cross_entropy(f, centers, proxies, labels, 0.3)

    def score(i: int, code: Tensor) -> float:
        return math.exp(float(f[i] @ code) / float(f[i].norm()) / math.sqrt(BITS) / 0.3)

    for i in range(N):
        own = score(i, centers[i])
        strangers = sum(score(i, proxies[k]) for k in range(K) if not labels[i, k])
        assert float(found[i]) == pytest.approx(-math.log(own / (own + strangers)), rel=1e-11, abs=1e-14)


def test_centroid_of_all_classes_costs_nothing() -> None:
    f, ones = codes(0), torch.ones(N, K, dtype=torch.float64)
    proxies = torch.as_tensor(class_proxies(K, BITS, generator(0)))
    f.requires_grad_()
    loss = centroid_cross_entropy(f, merged_proxies(ones, proxies, torch.ones(BITS)), proxies, ones, 0.3)
    assert not bool(loss.any())
    assert bool(torch.autograd.grad(loss.sum(), f)[0].isfinite().all())


def test_bitwise_form_is_binary_cross_entropy() -> None:
    f = codes(0)
    centers = random(1, N, BITS).sign()
    expected = torch.nn.functional.binary_cross_entropy((1 + f) / 2, (1 + centers) / 2, reduction="none").mean(1)
    torch.testing.assert_close(bitwise_cross_entropy(f, centers), expected)
    worst = bitwise_cross_entropy(-centers, centers)
    torch.testing.assert_close(worst, torch.full((N,), -math.log(1e-6), dtype=torch.float64))


@pytest.mark.parametrize("pull", ["softmax", "centroid", "bce"])
def test_without_labels_nothing_pulls(pull: str) -> None:
    this, f = method(pull=pull), codes(0).requires_grad_()
    labels = torch.zeros(N, K, dtype=torch.float64)
    found = this.pull(f, labels, state(this))
    assert not bool(found.any())
    assert not bool(torch.autograd.grad(found.sum(), f)[0].any())


# l_MQ


def test_mutual_quantisation_by_hand() -> None:
    """p = 3/4 against 1/4: (3/4 ln 3 + 1/4 ln 1/3) twice = ln 3; the second bit agrees: mean (ln 3) / 2."""
    u, v = torch.tensor([[0.5, 0.2]]), torch.tensor([[-0.5, 0.2]])
    assert mutual_quantisation(u, v).tolist() == pytest.approx([math.log(3) / 2])


@given(st.integers(0, 200))
def test_mutual_quantisation_is_the_sum_of_both_divergences(seed: int) -> None:
    u, v = codes(seed, 4), codes(seed + 1000, 4)
    p, q = ((1 + f.numpy()) / 2 for f in (u, v))

    def divergence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))

    found = mutual_quantisation(u, v)
    np.testing.assert_allclose(found, (divergence(p, q) + divergence(q, p)).mean(1), rtol=1e-9)
    torch.testing.assert_close(found, mutual_quantisation(v, u))
    assert bool((found >= 0).all())
    assert not bool(mutual_quantisation(u, u).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_disagreement_is_bounded(dtype: torch.dtype) -> None:
    """Probabilities 1e-6 and 1 - 1e-6: 2 (1 - 2e-6) ln(1e6 - 1), without gradient where the code is clipped."""
    u = torch.ones(1, 3, dtype=dtype, requires_grad=True)
    found = mutual_quantisation(u, -torch.ones(1, 3, dtype=dtype))
    assert float(found.detach()) == pytest.approx(2 * (1 - 2e-6) * math.log(1e6 - 1), rel=1e-2)
    assert bool(torch.autograd.grad(found.sum(), u)[0].isfinite().all())


def test_gradient_flows_into_both_modalities() -> None:
    u, v = codes(0).requires_grad_(), codes(1).requires_grad_()
    of_u, of_v = torch.autograd.grad(mutual_quantisation(u, v).sum(), (u, v))
    assert bool(of_u.any(1).all())
    assert bool(of_v.any(1).all())


def test_divergence_of_class_posteriors() -> None:
    """(1/2, 1/2) against (1/4, 3/4): KL both ways = 1/4 ln 2 - 1/4 ln(2/3) = (ln 3) / 4."""
    log_p, log_q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert symmetric_divergence(log_p, log_q).tolist() == pytest.approx([math.log(3) / 4])


# selection


def test_share_falls_to_the_clean_share() -> None:
    assert [kept_share(0.4, epoch, 10) for epoch in (0, 5, 10, 99)] == pytest.approx([1, 0.8, 0.6, 0.6])
    assert kept_share(0.0, 50, 10) == 1
    assert [method(epochs=epochs).ramp for epochs in (1, 4, 30, 100)] == [1, 1, 3, 10]


@pytest.mark.parametrize(
    ("share", "count"), [(1.0, 10), (0.95, 10), (0.91, 10), (0.9, 9), (1 - 0.4, 6), (1 - 0.7, 3), (0.01, 1), (0.0, 0)]
)
def test_how_many_are_kept(share: float, count: int) -> None:
    """ceil(R B); 1 - 0.7 = 0.30000000000000004 keeps 3."""
    losses, everybody = random(0, 10), torch.ones(10, dtype=torch.bool)
    kept = smallest(losses, torch.tensor(share, dtype=torch.float64), everybody)
    assert int(kept.sum()) == count
    assert set(kept.nonzero()[:, 0].tolist()) == set(losses.argsort()[:count].tolist())


def test_many_items_are_counted_exactly() -> None:
    everybody = torch.ones(100_000, dtype=torch.bool)
    share = torch.tensor(1 - 0.4, dtype=torch.float64)
    assert int(smallest(torch.zeros(100_000), share, everybody).sum()) == 60_000


def test_ties_go_by_place_and_outsiders_never_count() -> None:
    losses = torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0])
    half = torch.tensor(0.5, dtype=torch.float64)
    assert smallest(losses, half, torch.ones(5, dtype=torch.bool)).tolist() == [True, True, True, False, False]
    insiders = torch.tensor([True, False, True, True, True])
    assert smallest(losses, half, insiders).tolist() == [True, False, True, False, False]
    assert not bool(smallest(losses, half, torch.zeros(5, dtype=torch.bool)).any())


def test_who_has_labels() -> None:
    assert labelled(items()).tolist() == [i not in (2, 4, 5) for i in range(N)]


# the method


def losses_of(this: Cmmq, batch: Batch, before: dict[str, Any]) -> Tensor:
    """``l_i`` from the equations' own functions."""
    module = network(this)
    u, v = module.images(batch.images), module.texts(batch.texts)  # type: ignore[operator]
    assert batch.labels is not None
    assert batch.text_labels is not None
    pull = this.pull(u, batch.labels, before) + this.pull(v, batch.text_labels, before)
    if this.params.mutual_on == "bits":
        mutual = mutual_quantisation(u, v)
    else:
        p, q = ((proxy_similarity(f, before["proxies"]) / 0.3).log_softmax(1) for f in (u, v))
        mutual = symmetric_divergence(p, q)
    return ((1 - this.params.mutual) * pull + this.params.mutual * mutual).detach()


@pytest.mark.parametrize("variant", VARIANTS)
def test_objective(variant: str) -> None:
    this, batch = method(variant), items()
    before = state(this, share=0.6)
    losses = losses_of(this, batch, before)
    inside = [i for i in range(N) if i not in (2, 4, 5)]
    chosen = sorted(inside, key=lambda i: float(losses[i]))[: math.ceil(0.6 * len(inside))]
    if variant == "select-epoch":
        chosen = [1, 7, 8]
        before["kept"] = torch.zeros(N, dtype=torch.float64).index_fill(0, torch.tensor([*chosen, 2]), 1.0)
    out, _ = step(this, batch, before)
    assert out.weight is not None
    assert out.sample_loss is not None
    torch.testing.assert_close(out.sample_loss, losses, rtol=1e-12, atol=1e-14)
    assert out.weight.tolist() == [float(i in chosen) for i in range(N)]
    assert float(joint(out).detach()) == pytest.approx(float(losses[chosen].mean()), rel=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_that_do_not_count_equal_a_smaller_batch(variant: str) -> None:
    """Fill-ups, items without labels, and items of large loss."""
    this, valid = method(variant), torch.arange(N) != 7
    before = state(this, share=0.6)
    before["kept"] = (torch.arange(N) % 3 > 0).double()
    out, gradients = step(this, items(valid), before)
    smaller, expected = step(this, part(items(), valid & labelled(items())), before)
    torch.testing.assert_close(joint(out), joint(smaller), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-13)
    assert out.weight is not None
    only_kept, kept_gradients = step(this, part(items(), out.weight > 0), before | {"share": torch.ones(())})
    torch.testing.assert_close(joint(out), joint(only_kept), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients, kept_gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nobody_kept_gives_no_loss_and_no_gradient(variant: str) -> None:
    for valid, share in ((torch.zeros(N, dtype=torch.bool), 1.0), (None, 0.0)):
        before = state(method(variant), share)
        before["kept"] = torch.zeros(N, dtype=torch.float64)
        out, gradients = step(method(variant), items(valid), before)
        assert float(joint(out).detach()) == 0
        assert not any(bool(g.any()) for g in gradients.values())


def concluded(this: Cmmq, epoch: int, rate: float = 0.4) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """What ``partition`` says, from which signals and which state."""
    module, batch, before = network(this), items(), state(this, rate=rate)
    nets = {"net": BoundNetwork(module, dict(module.named_parameters()))}
    with torch.no_grad():
        signals = dict(this.signals(nets, batch, before, epoch))
        return this.partition(nets, train_view(batch), signals, before, epoch), signals, before


@pytest.mark.parametrize("variant", VARIANTS)
def test_partition_keeps_and_tells(variant: str) -> None:
    this = method(variant)
    found, signals, before = concluded(this, epoch=1)
    assert found.facts == {"kept_share": pytest.approx(0.8), "known_rate": 0.4}
    assert float(found.state["share"]) == pytest.approx(0.8)
    losses = losses_of(this, items(), before)
    inside = [i for i in range(N) if i not in (2, 4, 5)]
    chosen = sorted(inside, key=lambda i: float(losses[i]))[: math.ceil(0.8 * len(inside))]
    assert found.state["kept"].tolist() == [float(i in chosen) for i in range(N)]
    assert sorted(found.clean_probability) == ["mutual", "pull"]
    for name, values in found.clean_probability.items():
        assert values[[2, 4, 5]].tolist() == [0, 0, 0]
        torch.testing.assert_close(values[inside], 1 - normalised(signals[name])[inside])
        assert 0 <= float(values.min()) <= float(values.max()) <= 1


def test_first_epoch_and_clean_data_keep_everybody_with_labels() -> None:
    for found in (concluded(method(), 0)[0], concluded(method(), 15, rate=0.0)[0]):
        assert found.state["kept"].tolist() == [float(i not in (2, 4, 5)) for i in range(N)]
        assert float(found.state["share"]) == 1


def test_what_an_epoch_does() -> None:
    (walk,) = method().passes(3)
    assert isinstance(walk, Pass)
    assert (walk.draws, walk.last_batch, len(walk.updates)) == ({"all": N}, "keep", 1)


def test_variants_are_the_open_points_of_the_specification() -> None:
    paper = Cmmq.variants["paper"]
    changes = {name: {f: v for f, v in vars(p).items() if v != getattr(paper, f)} for name, p in Cmmq.variants.items()}
    assert changes == {
        "paper": {},
        "no-mutual": {"mutual": 0.0},
        "select-epoch": {"scope": "epoch"},
        "mq-on-proxies": {"mutual_on": "proxies"},
        "centroid": {"pull": "centroid"},
        "pc-bce": {"pull": "bce"},
    }
    assert Cmmq.label == "CMMQ (reconstruction; no official code)"
    assert Cmmq.flags == {"reconstruction"}


def test_heads_end_in_tanh_without_unit_norm() -> None:
    module = network(method())
    u = module.images(random(0, 7, 5))  # type: ignore[operator]
    torch.testing.assert_close(u, module.image_head(random(0, 7, 5)).tanh())  # type: ignore[operator]
    assert float((u.norm(dim=1) - 1).abs().min().detach()) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_runs_side_by_side_are_runs_alone(variant: str) -> None:
    this, batch = method(variant), items()
    optimizer = Optimizer("adam", 1e-2, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant"))
    this.optimizers = lambda: {"net": optimizer}  # type: ignore[method-assign]
    assert batch.labels is not None
    labels = torch.stack([batch.labels, batch.labels.flip(0), batch.labels.roll(1, 1)])

    def trained(runs: list[int]) -> dict[str, Tensor]:
        given = {"image_of_pair": torch.arange(N).expand(len(runs), N), "labels": labels[runs]}
        tables = Tables(batch.images, batch.texts, given)
        driver = BatchedDriver(this, {"net": [network(this, seed) for seed in runs]}, tables)
        driver.start_states([Cell(0.2 * seed, seed) for seed in runs])  # type: ignore[misc]
        orders = [np.random.Generator(np.random.Philox(key=seed)).permutation(N) for seed in runs]
        for slot, signals in enumerate(driver.signals(orders, 1, 5)):
            found = this.partition(driver.networks_of(slot), tables.of_run(slot), signals, driver.state_of(slot), 1)
            driver.replace_state(slot, found.state)
        index = torch.arange(N).expand(1, len(runs), N)
        draw = Draws(index, index < N - 2, np.ones((1, len(runs)), bool))
        for _ in range(2):
            plan = PassPlan({"all": draw}, np.ones(len(runs), dtype=int))
            driver.step(Update("train"), plan, 0, {"net": [1.0] * len(runs)})
        return driver.params["net"] | {"kept": driver.state["kept"]}

    together = trained([0, 1, 2])
    for run in range(3):
        alone = trained([run])
        for key, value in together.items():
            torch.testing.assert_close(value[run], alone[key][0], rtol=1e-9, atol=1e-12)


def test_the_rate_is_a_grant() -> None:
    protocol = small_label_protocol(grants=Grants())
    trial = Trial("cmmq", "paper", protocol)
    record = next(iter(trial.run(trial.cells[:1]).values()))
    assert record.status == "not_applicable"
    assert "noise-rate" in record.reason


def test_records_tell_the_detectors_apart() -> None:
    trial = Trial("cmmq", "paper", small_label_protocol())
    cell = next(cell for cell in trial.cells if cell.rate > 0)
    record = trial.run([cell])[cell.cell_id]
    assert record.outcome is not None, record.reason
    logged = {(signal.signal, signal.network) for signal in record.outcome.signals}
    assert logged == {
        ("weight", "net"),
        ("loss", "net"),
        ("clean_probability", "pull"),
        ("clean_probability", "mutual"),
    }
    assert record.outcome.facts["kept_share"] == pytest.approx(1 - cell.rate)

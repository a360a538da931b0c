"""MRL: its losses by hand and against plain loops, the implicit weight, unit centres, items that must not count."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Pass, Spec, StepOutput, Update
from nocobench.methods.label_losses import contrastive_hashing, label_cross_entropy
from nocobench.methods.mrl import (
    ClusterTowers,
    Mrl,
    implicit_weight,
    log_complement,
    multimodal_contrastive,
    robust_clustering,
)
from nocobench.methods.optim import Optimizer, Progress, Schedule
from nocobench.methods.registry import MethodError
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.contract_checks import Trial, cells_of, small_label_protocol
from nocobench.protocols.drivers import Tables
from nocobench.protocols.protocol import DatasetChoice, NoiseChoice
from torch import Tensor

SIZE, K, DIM = 6, 4, 16
SPEC = Spec(
    SIZE, SIZE, 5, 3, False, Backbone("hashing", 32, DIM, False), Budget(10, SIZE, Optimizer()), n_classes=K, bits=16
)
VARIANTS = sorted(Mrl.variants)


def method(variant: str = "released", **changes: Any) -> Mrl:
    return Mrl(replace(Mrl.variants[variant], **changes), SPEC)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(seed: int, rows: int) -> Tensor:
    return torch.nn.functional.normalize(random(seed, rows, DIM), dim=-1)


def one_hot(*classes: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[list(classes)]


LABELS, TEXT_LABELS = one_hot(0, 1, 2, 3, 0, 1), one_hot(1, 1, 2, 0, 3, 2)


def network(this: Mrl, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return this.networks()["net"]().double()


def batch(labels: Tensor = LABELS, text_labels: Tensor = TEXT_LABELS, valid: Tensor | None = None) -> Batch:
    index = torch.arange(len(labels))
    images, texts = random(0, SIZE, 5)[: len(labels)], random(1, SIZE, 3)[: len(labels)]
    return Batch(index, images, texts, index, valid, None, labels, text_labels)


def step(this: Mrl, items: Batch) -> tuple[StepOutput, dict[str, Tensor]]:
    """What ``loss`` says, and its gradients."""
    module = network(this)
    net = BoundNetwork(module, dict(module.named_parameters()))
    out = this.loss({"net": net}, {"all": items}, {}, "train")
    found = torch.autograd.grad(total(out), list(net.params.values()), allow_unused=True)
    return out, {k: torch.zeros(()) if g is None else g for k, g in zip(net.params, found, strict=True)}


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    return sum(out.loss.values(), start=torch.zeros(()))


# L_r


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6))
def test_complement_of_softmax(logits: list[float]) -> None:
    """log(1 - p_k) = log of the sum of all other exponentials over the sum of all."""
    weights = np.exp(np.array(logits))
    expected = [math.log((weights.sum() - w if w < weights.max() else np.delete(weights, k).sum()) / weights.sum())
                for k, w in enumerate(weights)]  # fmt: skip
    found = log_complement(torch.tensor([logits], dtype=torch.float64))
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)


def test_a_certain_class_costs_a_finite_amount() -> None:
    """p_0 rounds to 1 in float32; log(1 - p_0) = log(2 e^-90) = -89.3, and the gradient is -p_0 = -1 (3.2)."""
    logits = torch.tensor([[90.0, 0.0, 0.0]], requires_grad=True)
    loss = robust_clustering(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(loss.detach()) == pytest.approx(math.log(2) - 90)
    assert gradient[0].tolist() == pytest.approx([-1, 0.5, 0.5])


def test_clustering_loss_by_hand() -> None:
    """p = (1/2, 1/4, 1/4): log(1/2) for the first class, log(3/4) for the second, their mean for both, 0 for none."""
    logits = torch.tensor([[2.0, 1.0, 1.0]] * 4).log()
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    both = (math.log(0.5) + math.log(0.75)) / 2
    assert robust_clustering(logits, labels).tolist() == pytest.approx([math.log(0.5), math.log(0.75), both, 0])


@pytest.mark.parametrize("seed", range(5))
def test_clustering_is_cross_entropy_with_implicit_weights(seed: int) -> None:
    """grad log(1 - p_y) = p_y / (1 - p_y) grad(-log p_y), and the logged weight is this factor over its bound (3.2)."""
    logits = random(seed, 5, K).requires_grad_()
    labels = one_hot(0, 1, 2, 3, 0)
    (ours,) = torch.autograd.grad(robust_clustering(logits, labels).sum(), logits)
    (plain,) = torch.autograd.grad(label_cross_entropy(logits, labels).sum(), logits)
    p = (logits.softmax(1) * labels).sum(1, keepdim=True).detach()
    torch.testing.assert_close(ours, p / (1 - p) * plain, rtol=1e-9, atol=1e-12)
    tau = 2 / 30  # a bound that these logits do not reach
    expected = (p / (1 - p))[:, 0] / (math.exp(2 / tau) / (K - 1))
    torch.testing.assert_close(implicit_weight(logits, labels, tau).detach(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_weight_is_1_at_most(tau: float) -> None:
    """Reached where the embedding is its centre and all other centres are opposite; elsewhere it is less."""
    centre = units(0, 1)
    centers = torch.cat([centre, -centre, -centre, -centre])
    assert implicit_weight(centre @ centers.T / tau, one_hot(0), tau).tolist() == pytest.approx([1])
    others = implicit_weight(units(1, 200) @ centers.T / tau, one_hot(*[0] * 200), tau)
    assert 0 < float(others.min()) < float(others.max()) < 1


# L_c


def contrastive_by_loops(views: list[np.ndarray], tau: float, with_self: bool) -> list[float]:
    m, size = len(views), len(views[0])
    losses = [0.0] * size
    for v in range(m):
        for i in range(size):
            to = np.array([[math.exp(views[v][i] @ view[j] / tau) for j in range(size)] for view in views])
            if not with_self:
                to[v, i] = 0
            losses[i] += -2 / m * math.log(to[:, i].sum() / to.sum())
    return losses


@pytest.mark.parametrize("with_self", [False, True])
@pytest.mark.parametrize(("m", "size"), [(2, 1), (2, 5), (3, 4)])
def test_contrastive_loss_against_loops(m: int, size: int, with_self: bool) -> None:
    views = [units(seed, size) for seed in range(m)]
    found = multimodal_contrastive(views, 0.6, with_self=with_self)
    expected = contrastive_by_loops([view.numpy() for view in views], 0.6, with_self)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_of_two_views_it_is_the_contrastive_hashing_loss() -> None:
    views, valid = (units(0, 7), units(1, 7)), torch.arange(7) < 5
    for mask in (None, valid):
        found = multimodal_contrastive(views, 0.6, mask)
        torch.testing.assert_close(found, contrastive_hashing(*views, 0.6, 0.0, mask), rtol=1e-12, atol=1e-14)


# the method


def test_each_view_has_its_own_label() -> None:
    this, items = method(), batch()
    module = network(this)
    z1, z2 = module.images(items.images), module.texts(items.texts)  # type: ignore[operator]
    logits = [z @ module.centers.T for z in (z1, z2)]  # type: ignore[union-attr, operator]
    assert items.labels is not None
    assert items.text_labels is not None
    p = [x.softmax(1) for x in logits]
    p1, p2 = (p[0] * items.labels).sum(1), (p[1] * items.text_labels).sum(1)
    clustering = ((1 - p1).log() + (1 - p2).log()).mean()
    expected = 0.7 * clustering + 0.3 * contrastive_hashing(z1, z2, 1.0, 0.0).mean()
    out, _ = step(this, items)
    torch.testing.assert_close(total(out), expected, rtol=1e-10, atol=0)
    assert out.sample_loss is not None
    torch.testing.assert_close(out.sample_loss, -(p1.log() + p2.log()), rtol=1e-10, atol=0)
    assert out.weight is not None
    odds = (p1 / (1 - p1) + p2 / (1 - p2)) / 2
    torch.testing.assert_close(out.weight, odds.detach() * (K - 1) / math.exp(2), rtol=1e-10, atol=0)
    assert not out.weight.requires_grad


def test_default_of_the_release_is_cross_entropy() -> None:
    out, _ = step(method("released-defaults"), batch())
    assert isinstance(out.loss, dict)
    assert out.sample_loss is not None
    torch.testing.assert_close(out.loss["cross_entropy"], 0.5 * out.sample_loss.mean())
    assert out.weight is None


def test_ablations() -> None:
    blind = replace(batch(), labels=None, text_labels=None)
    out, gradients = step(method("contrastive-only"), blind)
    assert (sorted(out.loss), out.weight) == (["contrastive"], None)  # type: ignore[arg-type]
    assert not gradients["centers"].any()
    for variant in ("clustering-only", "cross-entropy"):
        out, _ = step(method(variant), batch())
        assert isinstance(out.loss, dict)
        assert float(out.loss["contrastive"].detach()) == 0


@pytest.mark.parametrize(
    ("dataset", "variant", "beta"),
    [("wikipedia", "paper", 0.7), ("inria", "paper", 0.9), ("else", "paper", 0.7), ("inria", "released", 0.7)],
)
def test_beta_of_the_data_set(dataset: str, variant: str, beta: float) -> None:
    assert Mrl(Mrl.variants[variant], replace(SPEC, dataset=dataset)).beta == beta


def test_items_without_labels_still_have_a_counterpart() -> None:
    nothing = torch.zeros_like(LABELS)
    out, gradients = step(method(), batch(nothing, nothing))
    assert isinstance(out.loss, dict)
    assert float(out.loss["clustering"].detach()) == 0
    assert out.weight is not None
    assert not out.weight.any()
    assert not gradients["centers"].any()
    assert all(bool(g.isfinite().all()) for g in gradients.values())
    assert gradients["image_head.0.weight"].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_filled_up_batch_is_the_smaller_batch(variant: str) -> None:
    this = method(variant)
    padded, padded_gradients = step(this, batch(valid=torch.arange(SIZE) < 4))
    smaller, smaller_gradients = step(this, batch(LABELS[:4], TEXT_LABELS[:4]))
    torch.testing.assert_close(total(padded), total(smaller), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(padded_gradients, smaller_gradients, rtol=1e-9, atol=1e-13)


def trained(this: Mrl, runs: list[int], steps: int = 2) -> dict[str, Tensor]:
    """Parameters ``[runs, ...]`` after some steps."""
    optimizer = Optimizer("adam", 1e-2, (0.5, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant"))
    this.optimizers = lambda: {"net": optimizer}  # type: ignore[method-assign]
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS.roll(1, 1)])[runs]
    given_labels = {"image_of_pair": torch.arange(SIZE).expand(len(runs), SIZE), "labels": labels}
    tables = Tables(random(0, SIZE, 5), random(1, SIZE, 3), given_labels | {"text_labels": labels.flip(1)})
    driver = BatchedDriver(this, {"net": [network(this, seed) for seed in runs]}, tables)
    index = torch.arange(SIZE).expand(1, len(runs), SIZE)
    plan = PassPlan({"all": Draws(index, None, np.ones((1, len(runs)), bool))}, np.ones(len(runs), dtype=int))
    for _ in range(steps):
        driver.step(Update("train"), plan, 0, {"net": [1.0] * len(runs)})
    return driver.params["net"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_runs_side_by_side_are_runs_alone(variant: str) -> None:
    together = trained(method(variant), [0, 1, 2])
    for run in range(3):
        alone = trained(method(variant), [run])
        for key, value in together.items():
            torch.testing.assert_close(value[run], alone[key][0], rtol=1e-9, atol=1e-12)


def test_centres_start_orthogonal_move_and_stay_unit() -> None:
    start = dict(network(method()).named_parameters())["centers"].detach()
    torch.testing.assert_close(start @ start.T, torch.eye(K, dtype=torch.float64), rtol=0, atol=1e-6)
    after = trained(method(), [0])["centers"][0]
    assert float((after - start).abs().max()) > 1e-3
    torch.testing.assert_close(after.norm(dim=1), torch.ones(K, dtype=torch.float64))


def test_more_classes_than_dimensions() -> None:
    towers = ClusterTowers(replace(SPEC, n_classes=3 * DIM))
    assert towers.centers.shape == (3 * DIM, DIM)
    torch.testing.assert_close(towers.centers.norm(dim=1), torch.ones(3 * DIM))


def test_one_class_is_refused() -> None:
    with pytest.raises(MethodError, match="mrl compares classes but the data set has 1; take one with at least two"):
        Mrl(Mrl.Params(), replace(SPEC, n_classes=1)).networks()


def test_heads_have_a_bias_no_tanh_and_unit_rows() -> None:
    module = network(method())
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    assert shapes["image_head.4.bias"] == shapes["text_head.4.bias"] == (DIM,)
    with torch.no_grad():
        module.image_head[-1].bias.copy_(1e3 * units(0, 1)[0])  # type: ignore[index, union-attr, operator]
    found = module.images(random(1, 3, 5))  # type: ignore[operator]
    torch.testing.assert_close(found, units(0, 1).expand(3, DIM), rtol=0, atol=1e-2)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_what_an_epoch_does() -> None:
    (only,) = method().passes(0)
    assert isinstance(only, Pass)
    assert (only.draws, only.last_batch) == ({"all": SIZE}, "keep")
    assert not Mrl.binary


def test_recipe_of_the_authors_comes_one_epoch_late() -> None:
    """Epochs 0 and 1 have the full rate, epoch e that of e - 1 (mrl.md section 4)."""
    recipe = Mrl.recipe
    assert recipe is not None
    optimizer = recipe.optimizer
    assert (recipe.epochs, recipe.batch_size, optimizer.betas, optimizer.learning_rate) == (
        100,
        100,
        (0.5, 0.999),
        1e-4,
    )
    factors = [optimizer.schedule.factor_at(Progress(epoch, 100, 0, 1)) for epoch in (0, 1, 2, 51)]
    assert factors == pytest.approx([1, 1, 0.5 * (1 + math.cos(math.pi / 100)), 0.5])


# whole trainings


def test_weights_prefer_right_labels() -> None:
    """At the rate of the contract's protocol, 0.01, they do not separate within 20 epochs; at 0.002 they do."""
    budget = small_label_protocol().budget
    slower = budget.optimizer.model_copy(update={"learning_rate": 0.002})
    protocol = small_label_protocol(budget=budget.model_copy(update={"epochs": 20, "optimizer": slower}))
    (record,) = Trial("mrl", "released", protocol).run(cells_of(protocol, "mrl", "released", (0.5,), (0,))).values()
    assert record.outcome is not None, record.reason
    last = {s.signal: s for s in record.outcome.signals if s.epoch == 20}
    assert last["weight"].auc > 0.75
    assert last["loss"].auc > 0.75
    assert last["weight"].mean_clean > last["weight"].mean_noisy


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_with_several_labels(variant: str) -> None:
    protocol = small_label_protocol()
    several = DatasetChoice(name="synthetic", options=protocol.dataset.options | {"labels_per_item": 2.0})
    noise = NoiseChoice(model="multilabel-flip", rates=(0.0, 0.5))
    changed = small_label_protocol(dataset=several, noise=noise)
    (record,) = Trial("mrl", variant, changed).run(cells_of(changed, "mrl", variant, (0.5,), (0,))).values()
    assert record.status == "done", record.reason

"""NIRNL: centres, votes of neighbours, subsets, terms by hand and against loops, items that must not count."""

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
from nocobench.datasets.types import TrainView
from nocobench.methods import nirnl
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Partition, Pass, Spec, StepOutput, Update
from nocobench.methods.nirnl import (
    Nirnl,
    barycenters,
    class_means,
    fused_probability,
    has_tied_vote,
    log_class_probability,
    margin_loss,
    neighbour_labels,
    pseudo_label,
    refine,
    starting_points,
)
from nocobench.methods.optim import Optimizer, Schedule
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
VARIANTS, SUBSETS = sorted(Nirnl.variants), ["pure", "hard", "noisy"]


class Seeded:
    """A run that gives generators and nothing else."""

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=len(purpose)))


def method(variant: str = "released", **changes: Any) -> Nirnl:
    return Nirnl(replace(Nirnl.variants[variant], **changes), SPEC)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(seed: int, rows: int) -> Tensor:
    return torch.nn.functional.normalize(random(seed, rows, DIM), dim=-1)


def one_hot(*classes: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[list(classes)]


LABELS, TEXT_LABELS = one_hot(0, 1, 2, 2, 0, 1), one_hot(1, 1, 2, 0, 2, 2)  # nobody has class 3


def network(this: Nirnl, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return this.networks()["net"]().double()


def bound(module: torch.nn.Module) -> dict[str, BoundNetwork]:
    return {"net": BoundNetwork(module, dict(module.named_parameters()))}


def train_view(labels: Tensor = LABELS, text_labels: Tensor | None = TEXT_LABELS) -> TrainView:
    n = len(labels)
    return TrainView(random(0, n, 5), random(1, n, 3), torch.arange(n), labels, text_labels)


def concluded(
    this: Nirnl, train: TrainView, epoch: int = 0, module: torch.nn.Module | None = None
) -> tuple[Partition, dict[str, Any]]:
    """What ``partition`` says, and the state after it."""
    nets = bound(network(this) if module is None else module)
    state = dict(this.state(train, nets, Seeded()))  # type: ignore[arg-type]
    with torch.no_grad():
        found = this.partition(nets, train, {}, state, epoch)
    return found, state | dict(found.state)


def batch(train: TrainView, valid: Tensor | None = None) -> Batch:
    index = torch.arange(train.n_pairs)
    text_labels = train.labels if train.text_labels is None else train.text_labels
    return Batch(index, train.images, train.captions, index, valid, None, train.labels, text_labels)


def step(this: Nirnl, items: Batch, state: Mapping[str, Any], subset: str) -> tuple[StepOutput, dict[str, Tensor]]:
    """What ``loss`` says, and its gradients."""
    nets = bound(network(this))
    out = this.loss(nets, {subset: items}, state, subset)
    params = nets["net"].params
    return out, dict(zip(params, torch.autograd.grad(total(out), list(params.values())), strict=True))


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    return sum(out.loss.values(), start=torch.zeros(()))


# centres


def test_centres_are_means_over_both_modalities() -> None:
    images, texts = units(0, SIZE), units(1, SIZE)
    means, present = class_means((images, texts), (LABELS, TEXT_LABELS))
    # Class 0: images 0 and 4, text 3.
    torch.testing.assert_close(means[0], (images[0] + images[4] + texts[3]) / 3)
    assert float(means[0].norm()) < 0.99
    assert present.tolist() == [True, True, True, False]
    assert not means[3].any()


def test_an_item_of_several_classes_is_in_each_of_their_means() -> None:
    z = units(0, 2)
    labels = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
    means, present = class_means((z, z), (labels, labels))
    torch.testing.assert_close(means[:2], torch.stack([z[0], (z[0] + z[1]) / 2]))
    assert present.tolist() == [True, True, False, False]


def barycenter_by_steps(start: np.ndarray, mean: np.ndarray) -> np.ndarray:
    moved = 1.0
    while moved > 0.01:
        start, moved = (start + mean) / 2, float(np.linalg.norm(mean - start) / 2)
    return start


@given(st.integers(0, 200), st.floats(1e-4, 2))
def test_closed_form_of_the_released_iteration(seed: int, distance: float) -> None:
    means = random(seed, 3, DIM)
    starts = means + distance * units(seed + 1, 3)
    found = barycenters(starts, means)
    for c in range(3):
        np.testing.assert_allclose(found[c], barycenter_by_steps(starts[c].numpy(), means[c].numpy()), rtol=1e-9)
    assert float((found - means).norm(dim=1).max()) <= 0.01 + 1e-12


def test_a_start_at_the_mean_stays() -> None:
    means = units(0, 2)
    torch.testing.assert_close(barycenters(means, means), means, rtol=0, atol=0)


def test_barycentres_start_at_any_member() -> None:
    """Class 0 has images 0 and 4, then text 3: thirds of [0, 1)."""
    z = units(0, SIZE), units(1, SIZE)
    for share, expected in ((0.0, z[0][0]), (0.34, z[0][4]), (0.67, z[1][3]), (0.999, z[1][3])):
        starts = starting_points(z, (LABELS, TEXT_LABELS), torch.full((K,), share))
        torch.testing.assert_close(starts[0], expected, rtol=0, atol=0)


def test_exact_barycentres_are_beside_the_mean_and_drawn_again() -> None:
    exact, plain = method("exact-barycenter"), concluded(method(), train_view())[1]["centers"]
    first, again, next_epoch = (concluded(exact, train_view(), epoch)[1]["centers"] for epoch in (0, 0, 1))
    for centers in (first, next_epoch):
        distance = (centers - plain).norm(dim=1)[:3]
        assert bool(((distance > 1e-5) & (distance <= 0.01)).all())
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert bool((first != next_epoch)[:3].any())


# votes and subsets


@pytest.mark.parametrize("k", [1, 3, 50])
def test_neighbour_labels_against_loops(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of 4 rows that do not divide the 11 items."""
    monkeypatch.setattr(nirnl, "BLOCK", 4)
    z, labels = units(0, 11), one_hot(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2)
    found = neighbour_labels(z, labels, k)
    for i in range(11):
        nearest = sorted((j for j in range(11) if j != i), key=lambda j: -float(z[i] @ z[j]))[:k]
        torch.testing.assert_close(found[i], labels[nearest].mean(0), rtol=1e-12, atol=0)


def test_an_item_alone_is_refused() -> None:
    with pytest.raises(MethodError, match="there are 1 items; give at least two"):
        neighbour_labels(units(0, 1), one_hot(0), 10)


def test_subsets_by_hand() -> None:
    """Votes against given labels: both, image only, text only, none, several labels, no label, tie."""
    images = torch.tensor([[0.9, 0.1, 0], [0.8, 0.2, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]])
    texts = torch.tensor([[0.6, 0.4, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0.2, 0.4, 0.4]])
    labels = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]])
    found = refine((images, texts), (labels, labels))
    assert found["pure"].tolist() == [True, False, False, False, True, False, False]
    assert found["hard"].tolist() == [False, True, True, False, False, False, True]
    assert found["noisy"].tolist() == [False, False, False, True, False, True, False]
    assert has_tied_vote(images).tolist() == [False] * 6 + [True]


def test_votes_take_the_labels_of_their_modality() -> None:
    votes = one_hot(0), one_hot(1)
    assert refine(votes, (one_hot(0), one_hot(1)))["pure"].tolist() == [True]
    assert refine(votes, (one_hot(1), one_hot(0)))["noisy"].tolist() == [True]


@given(st.integers(0, 50))
def test_subsets_are_disjoint_and_complete(seed: int) -> None:
    soft = [random(seed + m, 20, K).softmax(1) for m in (0, 1000)]
    labels = (random(seed, 20, K) > 0.5).double()
    assert bool((torch.stack(list(refine(soft, (labels, labels)).values())).sum(0) == 1).all())


def test_partition_says_shares_and_agreement() -> None:
    this = method(neighbours=2)
    train = train_view()
    found, state = concluded(this, train)
    module = network(this)
    soft = [
        neighbour_labels(module.images(train.images), LABELS, 2),  # type: ignore[operator]
        neighbour_labels(module.texts(train.captions), TEXT_LABELS, 2),  # type: ignore[operator]
    ]
    agreement = ((soft[0] * LABELS).sum(1) + (soft[1] * TEXT_LABELS).sum(1)) / 2
    torch.testing.assert_close(found.clean_probability["net"], agreement, rtol=1e-12, atol=0)
    torch.testing.assert_close(state["agreement"], agreement, rtol=1e-12, atol=0)
    assert {name: float(mask.double().mean()) for name, mask in found.subsets.items()} == {
        name: found.facts[f"{name}_share"] for name in SUBSETS
    }
    assert (found.facts["empty_classes"], found.facts["alpha"]) == (1, 0.5)
    tied = torch.stack([has_tied_vote(s) for s in soft]).double().mean()
    assert 0 < found.facts["tied_votes_share"] == float(tied)


# probabilities and terms


def test_probabilities_by_hand() -> None:
    """Logits (ln 2, 0, 0) of three classes, of which the last has no items: p = (2/3, 1/3, 0)."""
    z, centers = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(2), 0.0], [0, 1], [0, 0]])
    log_p = log_class_probability(z, centers, torch.tensor([1.0, 1, 0]))
    assert log_p.exp()[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert bool(log_p.isfinite().all())
    other = torch.tensor([[0.1, 0.9, 1e-30]]).log()
    assert fused_probability((log_p, other))[0].tolist() == pytest.approx([0.7, 1 - (2 / 3) * 0.1, 0], abs=1e-6)
    assert pseudo_label((log_p, other)).tolist() == [[0, 1, 0]]


def test_terms_by_hand() -> None:
    """p^1 = (.6, .4), p^2 = (.3, .7), label 0: P = (1 - .4 .7, 1 - .6 .3) = (.72, .82), pseudo label 1."""
    log_p = torch.tensor([[[0.6, 0.4]], [[0.3, 0.7]]]).log()
    first, both, none = torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]]), torch.zeros(1, 2)
    this, plain = method(), -math.log(0.6) - math.log(0.3)
    other = -math.log(0.4) - math.log(0.7)
    for subset, labels, expected in (
        ("pure", first, plain),
        ("hard", first, 0.72 * plain),
        ("noisy", first, 2 * 0.6 + 2 * 0.3),
        ("pure", both, (plain + other) / 2),
        ("hard", both, (0.72 * plain + 0.82 * other) / 2),
        ("pure", none, 0),
        ("hard", none, 0),
        ("noisy", none, 1.8),
    ):
        assert this.label_term(subset, log_p, (labels, labels)).tolist() == pytest.approx([expected]), subset
    unweighted = method("hard-unweighted").label_term("hard", log_p, (first, first))
    assert unweighted.tolist() == pytest.approx([plain])


def test_confidence_of_hard_items_has_no_gradient() -> None:
    logits = random(0, 1, K).requires_grad_()
    log_p = [logits.log_softmax(1), random(1, 1, K).log_softmax(1)]
    label = one_hot(2)
    confidence = float(fused_probability(log_p)[0, 2].detach())
    found = [method().label_term(subset, log_p, (label, label)).sum() for subset in ("pure", "hard")]
    pure, hard = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in found)
    torch.testing.assert_close(hard, confidence * pure, rtol=1e-12, atol=0)


def margin_by_loops(z1: np.ndarray, z2: np.ndarray, margin: float, with_diagonal: bool) -> float:
    size, losses = len(z1), []
    for i in range(size):
        for j in range(size):
            if i != j or with_diagonal:
                own = z1[i] @ z2[i]
                losses.append(max(0, z1[i] @ z2[j] - own + margin) + max(0, z2[i] @ z1[j] - own + margin))
    return float(np.mean(losses))


@pytest.mark.parametrize("with_diagonal", [True, False])
@pytest.mark.parametrize("margin", [0.9, 0.1])
def test_margin_loss_against_loops(margin: float, with_diagonal: bool) -> None:
    z1, z2 = units(0, 7), units(1, 7)
    found = margin_loss(z1, z2, margin, with_diagonal=with_diagonal).mean()
    assert float(found) == pytest.approx(margin_by_loops(z1.numpy(), z2.numpy(), margin, with_diagonal), rel=1e-12)


def test_diagonal_adds_a_constant() -> None:
    """Of the mean over B^2, B are the margin: released = 2 M / B + (1 - 1 / B) of the mean over j != i."""
    z1, z2 = units(0, 7), units(1, 7)
    released, paper = (margin_loss(z1, z2, 0.9, with_diagonal=d).mean() for d in (True, False))
    torch.testing.assert_close(released, 2 * 0.9 / 7 + 6 / 7 * paper, rtol=1e-12, atol=0)


# the method


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_objective_of_a_subset(variant: str, subset: str) -> None:
    this, train = method(variant), train_view()
    found, state = concluded(this, train)
    out, _ = step(this, batch(train), state, subset)
    module = network(this)
    z = module.images(train.images), module.texts(train.captions)  # type: ignore[operator]
    log_p = [log_class_probability(x, state["centers"], state["present"]) for x in z]
    terms = this.label_term(subset, log_p, (LABELS, TEXT_LABELS))
    margin = margin_loss(*z, 0.9, with_diagonal=this.params.with_diagonal)
    torch.testing.assert_close(total(out), terms.mean() + this.alpha * margin.mean(), rtol=1e-11, atol=0)
    assert out.weight is not None
    assert out.weight.tolist() == found.clean_probability["net"].tolist()
    plain = this.label_term("pure", log_p, (LABELS, TEXT_LABELS))
    assert out.sample_loss is not None
    torch.testing.assert_close(out.sample_loss, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_filled_up_batch_is_the_smaller_batch(variant: str, subset: str) -> None:
    this, train = method(variant), train_view()
    _, state = concluded(this, train)
    padded, padded_gradients = step(this, batch(train, torch.arange(SIZE) < 4), state, subset)
    smaller_view = TrainView(train.images[:4], train.captions[:4], train.image_of_pair[:4], LABELS[:4], TEXT_LABELS[:4])
    smaller, smaller_gradients = step(this, batch(smaller_view), state, subset)
    torch.testing.assert_close(total(padded), total(smaller), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(padded_gradients, smaller_gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("subset", SUBSETS)
def test_items_without_labels_are_noisy_and_finite(subset: str) -> None:
    this = method()
    train = train_view(torch.cat([LABELS[:4], torch.zeros(2, K, dtype=torch.float64)]), None)
    found, state = concluded(this, train)
    assert found.subsets["noisy"].tolist()[4:] == [True, True]
    assert found.clean_probability["net"].tolist()[4:] == [0, 0]
    out, gradients = step(this, batch(train), state, subset)
    assert bool(total(out).isfinite())
    assert all(bool(g.isfinite().all()) for g in gradients.values())


@pytest.mark.parametrize("variant", ["released", "exact-barycenter"])
def test_runs_side_by_side_are_runs_alone(variant: str) -> None:
    this = method(variant)
    optimizer = Optimizer("adam", 1e-2, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant"))
    this.optimizers = lambda: {"net": optimizer}  # type: ignore[method-assign]
    labels = torch.stack([LABELS, LABELS.flip(0), LABELS.roll(1, 1)])

    def trained(runs: list[int]) -> dict[str, Tensor]:
        index_of = torch.arange(SIZE).expand(len(runs), SIZE)
        tables = Tables(random(0, SIZE, 5), random(1, SIZE, 3), {"image_of_pair": index_of, "labels": labels[runs]})
        driver = BatchedDriver(this, {"net": [network(this, seed) for seed in runs]}, tables)
        driver.start_states([Seeded() for _ in runs])  # type: ignore[misc]
        for slot in range(len(runs)):
            nets, state = driver.networks_of(slot), driver.state_of(slot)
            driver.replace_state(slot, this.partition(nets, tables.of_run(slot), {}, state, 0).state)
        for subset in SUBSETS:
            draw = Draws(
                index_of[None], torch.arange(SIZE).expand(index_of[None].shape) < 5, np.ones((1, len(runs)), bool)
            )
            plan = PassPlan({subset: draw}, np.ones(len(runs), dtype=int))
            driver.step(Update(subset), plan, 0, {"net": [1.0] * len(runs)})
        return driver.params["net"]

    together = trained([0, 1, 2])
    for run in range(3):
        alone = trained([run])
        for key, value in together.items():
            torch.testing.assert_close(value[run], alone[key][0], rtol=1e-9, atol=1e-12)


def test_what_an_epoch_does() -> None:
    def walked(variant: str) -> list[str]:
        names = []
        for this_pass in method(variant).passes(3):
            assert isinstance(this_pass, Pass)
            (only,) = this_pass.updates
            assert (this_pass.draws, this_pass.last_batch) == ({only.name: SIZE}, "keep")
            names.append(only.name)
        return names

    assert walked("released") == SUBSETS
    assert walked("pure-only") == ["pure"]
    assert not Nirnl.binary


@pytest.mark.parametrize(
    ("dataset", "variant", "alpha"),
    [
        ("wikipedia", "released", 0.9),
        ("xmedia", "released", 0.5),
        ("else", "released", 0.5),
        ("wikipedia", "no-margin", 0),
    ],
)
def test_alpha_of_the_data_set(dataset: str, variant: str, alpha: float) -> None:
    assert Nirnl(Nirnl.variants[variant], replace(SPEC, dataset=dataset)).alpha == alpha


def test_heads_have_no_last_bias_and_unit_rows_of_real_numbers() -> None:
    module = network(method())
    names = {name for name, _ in module.named_parameters()}
    assert "image_head.4.weight" in names
    assert "image_head.4.bias" not in names
    found = module.images(random(1, 3, 5))  # type: ignore[operator]
    assert found.shape == (3, DIM)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))


# whole trainings


def test_neighbours_find_the_right_labels() -> None:
    protocol = small_label_protocol()
    (record,) = Trial("nirnl", "released", protocol).run(cells_of(protocol, "nirnl", "released", (0.5,), (0,))).values()
    assert record.outcome is not None, record.reason
    last = {s.signal: s for s in record.outcome.signals if s.epoch == 4}
    assert last["clean_probability"].auc > 0.8
    assert last["weight"].mean_clean > last["weight"].mean_noisy + 0.2
    assert last["loss"].auc > 0.8
    facts = record.outcome.facts
    assert sum(facts[f"{name}_share"] for name in SUBSETS) == pytest.approx(1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_items_with_several_labels(variant: str) -> None:
    protocol = small_label_protocol()
    several = DatasetChoice(name="synthetic", options=protocol.dataset.options | {"labels_per_item": 2.0})
    noise = NoiseChoice(model="multilabel-flip", rates=(0.0, 0.5))
    changed = small_label_protocol(dataset=several, noise=noise)
    (record,) = Trial("nirnl", variant, changed).run(cells_of(changed, "nirnl", variant, (0.5,), (0,))).values()
    assert record.status == "done", record.reason

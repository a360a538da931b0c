"""NRCH beyond its oracles: the loss against loops, masks against smaller batches, the separator, and what never gets a gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nocobench.datasets.types import TrainView
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Spec, StepOutput
from nocobench.methods.nrch import (
    Nrch,
    clean_posterior,
    prototype_loss,
    prototype_residual,
    share_a_label,
)
from nocobench.methods.optim import Optimizer
from nocobench.protocols.contract_checks import Trial, small_label_protocol
from torch import Tensor

N, K, BITS, EPOCHS = 12, 4, 16, 10
SWITCHES: list[dict[str, Any]] = [{}, {"text_direction": True}, {"mask_negatives": True}]


def spec(epochs: int = EPOCHS) -> Spec:
    backbone = Backbone("hashing", hidden=32, dim=16, normalise_inputs=False)
    budget = Budget(epochs, N, Optimizer())
    return Spec(N, N, 5, 3, False, backbone, budget, n_classes=K, multi_label=True, bits=BITS)


def method(epochs: int = EPOCHS, **changes: Any) -> Nrch:
    return Nrch(replace(Nrch.Params(), **changes), spec(epochs))


def network(this: Nrch) -> BoundNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = this.networks()["net"]().double()
    return BoundNetwork(module, dict(module.named_parameters()))


def items(n: int = N, seed: int = 0, own_text_labels: bool = False) -> Batch:
    """Items with up to three labels; the third has none, and nobody has the last class."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for dim in (5, 3))
    labels, others = ((torch.rand(n, K, generator=generator) < 0.4).double() for _ in range(2))
    for given_labels in (labels, others):
        given_labels[2] = 0
        given_labels[:, -1] = 0
    index = torch.arange(n)
    return Batch(index, images, texts, index, labels=labels, text_labels=others if own_text_labels else labels)


def part(batch: Batch, chosen: Tensor) -> Batch:
    columns = {name: getattr(batch, name)[chosen] for name in ("index", "images", "texts", "image_id", "labels")}
    assert batch.text_labels is not None
    return Batch(**columns, text_labels=batch.text_labels[chosen])


def state(selected: Tensor | None = None) -> dict[str, Tensor]:
    ones = torch.ones(N, dtype=torch.float64)
    return {"selected": ones if selected is None else selected.double(), "no_noise_found": torch.zeros(())}


def step(this: Nrch, batch: Batch, given_state: dict[str, Tensor] | None = None, update: str = "selected items") -> Any:
    net = network(this)
    out = this.loss({"net": net}, {"all": batch}, given_state or state(), update)
    assert isinstance(out.loss, dict)
    names = list(net.params)
    return out, dict(zip(names, torch.autograd.grad(sum(out.loss.values()), list(net.params.values())), strict=True))


def codes(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(n, BITS, generator=generator, dtype=torch.float64) for _ in range(2))
    first, second = (torch.nn.functional.normalize(x, dim=1) for x in drawn)
    return first, second


def by_loops(this: Nrch, u: np.ndarray, v: np.ndarray, labels: np.ndarray, text_labels: np.ndarray) -> list[float]:
    """3.1 term by term, with the two switches."""
    p, n, bits = this.params, len(u), u.shape[1]
    u, v = np.tanh(u), np.tanh(v)
    similarity = u @ v.T

    def one_direction(i: int, texts_ask: bool) -> float:
        total = 0.0
        for j in range(n):
            s = similarity[j, i] if texts_ask else similarity[i, j]
            share = labels[j] @ text_labels[i] if texts_ask else labels[i] @ text_labels[j]
            cost = s if s >= similarity[i, i] - p.margin else s - p.shift
            if i == j:
                total += math.exp(max(cost, 0.0) / p.tau)
            elif share == 0:
                total += math.exp(cost / p.tau)
            elif not p.mask_negatives:
                total += 1.0
        return p.tau * math.log(total) - similarity[i, i] + p.margin

    losses = []
    for i in range(n):
        ranking = one_direction(i, False) + one_direction(i, p.text_direction)
        quantised = sum(np.mean((np.abs(x[i]) - 1 / math.sqrt(bits)) ** 2) for x in (u, v))
        losses.append(p.mix * ranking + (1 - p.mix) * quantised)
    return losses


@pytest.mark.parametrize("changes", [*SWITCHES, {"tau": 0.3, "margin": 0.4, "shift": 0.5, "mix": 0.9}])
@pytest.mark.parametrize("own_text_labels", [False, True])
def test_loss_against_loops(changes: dict[str, Any], own_text_labels: bool) -> None:
    this, batch = method(**changes), items(own_text_labels=own_text_labels)
    u, v = codes(N)
    assert batch.labels is not None
    assert batch.text_labels is not None
    ours = this.per_item(u, v, share_a_label(batch.labels, batch.text_labels))
    expected = by_loops(this, u.numpy(), v.numpy(), batch.labels.numpy(), batch.text_labels.numpy())
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_loss_by_hand() -> None:
    """Two items, equal unit codes of 4 bits, no common label: S = 4 tanh(1/2)^2 = 0.8542 everywhere, so every cost is S.

    l = 2 ln(2 e^S) - 2 S + 2 * 0.2 = 2 ln 2 + 0.4; with a common label 2 ln(e^S + 1) - 2 S + 0.4. |tanh(1/2)| is 0.0379 short of 1/2.
    """
    same = torch.full((2, 4), 0.5, dtype=torch.float64)
    quantised = 2 * (0.5 - math.tanh(0.5)) ** 2
    similarity = 4 * math.tanh(0.5) ** 2
    strangers, neighbours = torch.zeros(2, 2, dtype=torch.bool), ~torch.eye(2, dtype=torch.bool)
    cases = (
        (strangers, 2 * math.log(2) + 0.4),
        (neighbours, 2 * math.log(math.exp(similarity) + 1) - 2 * similarity + 0.4),
    )
    for shares, ranking in cases:
        found = method().per_item(same, same, shares)
        assert found.tolist() == pytest.approx([0.6 * ranking + 0.4 * quantised] * 2)
    assert method(mask_negatives=True).per_item(same, same, neighbours).tolist() == pytest.approx(
        [0.6 * 0.4 + 0.4 * quantised] * 2
    ), "no negative is left: the log of one term cancels"


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_order_of_items_does_not_matter(order: list[int]) -> None:
    batch, (u, v) = part(items(), torch.arange(6)), codes(6)
    assert batch.labels is not None
    shares = share_a_label(batch.labels, batch.labels)
    for changes in SWITCHES:
        this = method(**changes)
        moved = this.per_item(u[order], v[order], shares[order][:, order])
        torch.testing.assert_close(moved, this.per_item(u, v, shares)[order])


@pytest.mark.parametrize("changes", SWITCHES)
@pytest.mark.parametrize("by", ["selection", "valid", "both"])
def test_items_left_out_equal_a_smaller_batch(changes: dict[str, Any], by: str) -> None:
    this, batch = method(**changes), items(own_text_labels=True)
    keep = torch.tensor([True, False, True, True, False, True, True, False, True, False, True, True])
    other = torch.arange(N) != 5
    selected = {"selection": keep, "valid": torch.ones(N), "both": keep}[by]
    valid = {"selection": None, "valid": keep, "both": other}[by]
    left = keep & other if by == "both" else keep
    out, gradient = step(this, replace(batch, valid=valid), state(selected))
    expected, expected_gradient = step(this, part(batch, left), update="all items")
    torch.testing.assert_close(out.loss, expected.loss)
    torch.testing.assert_close(gradient, expected_gradient)


def test_nothing_selected_gives_no_loss_and_no_gradient() -> None:
    out, gradient = step(method(), items(), state(torch.zeros(N)))
    assert [float(value.detach()) for value in out.loss.values()] == [0, 0]
    assert all(bool((value == 0).all()) for value in gradient.values())


def test_before_the_selection_every_item_counts() -> None:
    everyone, _ = step(method(), items(), state(torch.zeros(N)), "all items")
    selected, _ = step(method(), items())
    torch.testing.assert_close(everyone.loss, selected.loss)
    assert everyone.weight is None
    assert selected.weight.tolist() == [1.0] * N


def test_labels_reach_the_heads_only_as_negatives() -> None:
    """The prototype loss trains the prototypes and nothing else, and the contrastive loss never the prototypes (3.2)."""
    this, net = method(), network(method())
    out = this.loss({"net": net}, {"all": items()}, state(), "all items")
    assert isinstance(out.loss, dict)
    for name, trained in (("prototypes", {"prototypes"}), ("hashing", set(net.params) - {"prototypes"})):
        gradients = torch.autograd.grad(out.loss[name], list(net.params.values()), retain_graph=True, allow_unused=True)
        reached = {key for key, value in zip(net.params, gradients, strict=True) if value is not None and value.any()}
        assert reached == trained


def test_prototype_loss_by_hand() -> None:
    """One bit, two classes, prototypes 0.5 and -0.5; image code 1, text code -1; labels (1, 0), so Y = (1, -1)."""
    image, text, prototypes = torch.tensor([[1.0]]), torch.tensor([[-1.0]]), torch.tensor([[0.5], [-0.5]])
    labels = torch.tensor([[1.0, 0.0]])
    assert float(prototype_loss(image, text, prototypes, labels, labels)) == pytest.approx(0.25 + 2.25)
    assert float(prototype_loss(image, text, prototypes, labels, 1 - labels)) == pytest.approx(0.25 + 0.25)


def test_residual_by_hand() -> None:
    """(1 - u.c)^2 is 0.25 and 2.25 for the image, 1.25^2 and 0.75^2 for the text; the largest sum over given labels counts."""
    image, text, prototypes = torch.tensor([[1.0]] * 4), torch.tensor([[-0.5]] * 4), torch.tensor([[0.5], [-0.5]])
    labels = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]])
    first, second = 0.25 + 1.25**2, 2.25 + 0.75**2
    assert prototype_residual(image, text, prototypes, labels).tolist() == pytest.approx([first, second, second, 0])
    given_apart = prototype_residual(image, text, prototypes, labels, labels.flip(1))
    assert given_apart.tolist() == pytest.approx([max(0.25, 0.75**2), max(2.25, 1.25**2), second, 0])


def residuals(noisy: int = 40, n: int = 100) -> Tensor:
    generator = np.random.Generator(np.random.PCG64(0))
    values = np.concatenate([generator.normal(0.5, 0.1, n - noisy), generator.normal(3.0, 0.3, noisy)])
    return torch.from_numpy(values)


def partition(this: Nrch, values: Tensor, epoch: int, mismatched: float = 4.0, found: float = 0.0) -> Any:
    before = {"selected": torch.ones_like(values), "no_noise_found": torch.tensor(found)}
    signals = {"residual": values, "mismatched": torch.full_like(values, mismatched)}
    view = TrainView(torch.zeros(len(values), 5), torch.zeros(len(values), 3), torch.arange(len(values)))
    return this.partition({}, view, signals, before, epoch)


def test_separator_leaves_out_large_residuals() -> None:
    found = partition(method(), residuals(), EPOCHS - 1)
    assert found.state["selected"].tolist() == [1.0] * 60 + [0.0] * 40
    assert found.facts["selected_share"] == pytest.approx(0.6)
    assert bool(((found.clean_probability["net"] >= 0.3) == (found.state["selected"] > 0)).all())


def test_threshold_decides() -> None:
    values = torch.linspace(0, 1, 101, dtype=torch.float64)
    posterior = clean_posterior(values)
    for threshold in (0.1, 0.3, 0.9):
        found = partition(method(threshold=threshold), values, EPOCHS - 1)
        assert int(found.state["selected"].sum()) == int((posterior >= threshold).sum())
        assert 0 < found.facts["selected_share"] < 1


def test_equal_residuals_keep_everybody() -> None:
    found = partition(method(), torch.full((20,), 2.0), EPOCHS - 1)
    assert found.facts["selected_share"] == 1


def test_broken_residuals_are_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        partition(method(), torch.tensor([0.0, 1.0, torch.nan]), EPOCHS - 1)


@pytest.mark.parametrize(("ratio", "mismatched", "fires"), [(0.25, 40.0, 1), (0.25, 4.0, 0), (0.0, 40.0, 0)])
def test_guard_is_an_option(ratio: float, mismatched: float, fires: int) -> None:
    """Sides at 0.5 and 3: the ratio is 2.5 / (mismatched - 0.5)."""
    this = method(guard_ratio=ratio)
    found = partition(this, residuals(), this.warmup, mismatched)
    assert found.facts["guard_ratio"] == pytest.approx(2.5 / (mismatched - 0.5), rel=0.05)
    assert found.facts["no_noise_found"] == float(found.state["no_noise_found"]) == fires
    assert found.facts["selected_share"] == pytest.approx(1.0 if fires else 0.6)
    later = partition(this, residuals(), this.warmup + 1, mismatched, found=float(fires))
    assert later.facts["selected_share"] == found.facts["selected_share"]


@pytest.mark.parametrize(("epochs", "first"), [(100, 19), (30, 6), (10, 2), (4, 1), (1, 0)])
def test_selection_begins_after_a_fifth_of_the_epochs(epochs: int, first: int) -> None:
    """In the recipe with the 20th epoch, as NRCH.py does."""
    this = method(epochs)
    assert [epoch for epoch in range(epochs) if this.observes(epoch)] == list(range(first, epochs))
    assert partition(this, residuals(), first - 1).state == {}
    never = method(epochs, selects=False)
    assert not any(never.observes(epoch) for epoch in range(epochs))


def test_signals_look_at_the_given_labels() -> None:
    this, batch = method(), items(own_text_labels=True)
    net = network(this)
    with torch.no_grad():
        found = this.signals({"net": net}, batch, state(), EPOCHS - 1)
        outputs = net.images(batch.images), net.texts(batch.texts), net.class_codes()
    assert batch.labels is not None
    assert batch.text_labels is not None
    torch.testing.assert_close(found["residual"], prototype_residual(*outputs, batch.labels, batch.text_labels))
    moved = [labels[[-1, *range(N - 1)]] for labels in (batch.labels, batch.text_labels)]
    torch.testing.assert_close(found["mismatched"], prototype_residual(*outputs, *moved))
    assert float(found["residual"][2]) == 0, "an item without labels"


def test_mapped_over_runs_equals_run_by_run() -> None:
    this, batch = method(), items()
    module = network(this).module
    stacked = {key: torch.stack([value, 0.7 * value]) for key, value in network(this).params.items()}
    masks = torch.stack([torch.arange(N) % 2, torch.arange(N) % 3]).double()

    def one(params: dict[str, Tensor], selected: Tensor) -> tuple[Tensor, ...]:
        out: StepOutput = this.loss(
            {"net": BoundNetwork(module, params)}, {"all": batch}, state(selected), "selected items"
        )
        assert isinstance(out.loss, dict)
        assert out.weight is not None
        assert out.sample_loss is not None
        return (*out.loss.values(), out.weight, out.sample_loss)

    mapped = torch.func.vmap(one)(stacked, masks)
    for run in range(2):
        alone = one({key: value[run] for key, value in stacked.items()}, masks[run])
        torch.testing.assert_close([value[run] for value in mapped], list(alone))


def test_prototypes_start_orthogonal() -> None:
    prototypes = network(method()).params["prototypes"]
    torch.testing.assert_close(prototypes @ prototypes.mT, torch.eye(K, dtype=torch.float64), atol=1e-6, rtol=0)


def test_recipe_is_the_authors() -> None:
    recipe = Nrch.recipe
    assert recipe is not None
    assert (recipe.epochs, recipe.batch_size) == (100, 128)
    rule = recipe.optimizer
    assert (rule.rule, rule.learning_rate, rule.betas[1], rule.decay, rule.decay_on) == (
        "rmsprop",
        1e-5,
        0.99,
        1e-5,
        "all",
    )


@pytest.mark.parametrize("variant", list(Nrch.variants))
def test_variants_run(variant: str) -> None:
    trial = Trial("nrch", variant, small_label_protocol())
    (record,) = trial.run(trial.cells[-1:]).values()
    assert record.status == "done", record
    assert record.outcome is not None
    facts, selects = record.outcome.facts, Nrch.variants[variant].selects
    assert ("selected_share" in facts) is selects
    signals = {summary.signal for summary in record.outcome.signals}
    assert signals == {"loss", "weight", "clean_probability"} if selects else signals == {"loss"}

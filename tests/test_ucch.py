"""UCCH beyond its oracles: both losses against loops, the memory by hand, its draws, pairs that must not count, and no look at labels."""

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
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Pass, Spec, StepOutput, Update
from nocobench.methods.optim import Optimizer, Progress, Schedule
from nocobench.methods.ucch import (
    Ucch,
    batch_logits,
    first_cross_entropy,
    first_memory,
    memory_logits,
    own_first,
    ranking_loss,
    remembered,
)
from nocobench.protocols.batched import BatchedDriver
from nocobench.protocols.batches import Draws, PassPlan
from nocobench.protocols.drivers import Tables
from torch import Tensor

N, SIZE, BITS, KEYS = 20, 6, 16, 9
SPEC = Spec(
    N, N, 5, 3, False, Backbone("hashing", 32, 16, False), Budget(10, SIZE, Optimizer()), n_classes=4, bits=BITS
)
VARIANTS, UPDATES = sorted(Ucch.variants), ["warm-up", "train"]


class Seeded:
    """A run that gives generators and nothing else."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.seed + 100 * len(purpose)))


def method(variant: str = "released", epochs: int = 10, **changes: Any) -> Ucch:
    changes.setdefault("keys", KEYS)
    spec = replace(SPEC, budget=replace(SPEC.budget, epochs=epochs))
    return Ucch(replace(Ucch.variants[variant], **changes), spec)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(seed: int, rows: int, bits: int = BITS) -> Tensor:
    return torch.nn.functional.normalize(random(seed, rows, bits), dim=-1)


def network(this: Ucch, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return this.networks()["net"]().double()


def train_view() -> TrainView:
    return TrainView(random(0, N, 5), random(1, N, 3), torch.arange(N))


def state(this: Ucch, seed: int = 0) -> dict[str, Any]:
    return dict(this.state(train_view(), {}, Seeded(seed)))  # type: ignore[arg-type]


def batch(rows: list[int], valid: Tensor | None = None) -> Batch:
    """Items of the training set without labels: whoever looks at them fails."""
    train, index = train_view(), torch.tensor(rows)
    return Batch(index, train.images[index], train.captions[index], index, valid)


ROWS = [4, 17, 0, 9, 12, 3]


def step(this: Ucch, items: Batch, before: dict[str, Any], update: str) -> tuple[StepOutput, dict[str, Tensor]]:
    """What ``loss`` says, and its gradients."""
    module = network(this)
    net = BoundNetwork(module, dict(module.named_parameters()))
    out = this.loss({"net": net}, {"all": items}, before, update)
    return out, dict(zip(net.params, torch.autograd.grad(total(out), list(net.params.values())), strict=True))


def total(out: StepOutput) -> Tensor:
    assert isinstance(out.loss, dict)
    return sum(out.loss.values(), start=torch.zeros(()))


# L_c and the keys


def contrastive_by_loops(h: np.ndarray, keys: list[np.ndarray], temperature: float) -> np.ndarray:
    """-log softmax of the first key of every row, keys of unit length."""
    found = []
    for row, candidates in zip(h, keys, strict=True):
        scores = [math.exp(key @ row / np.linalg.norm(key) / temperature) for key in candidates]
        found.append(-math.log(scores[0] / sum(scores)))
    return np.array(found)


def test_keys_of_the_memory_against_loops() -> None:
    h, memory = units(0, SIZE), random(1, N, BITS)
    index = torch.randint(N, (SIZE, 1 + KEYS), generator=torch.Generator().manual_seed(2))
    found = first_cross_entropy(memory_logits(h, memory, index, 0.9 * math.sqrt(BITS)))
    keys = [np.sign(memory.numpy())[row] for row in index.numpy()]
    np.testing.assert_allclose(found, contrastive_by_loops(h.numpy(), keys, 0.9), rtol=1e-12)


def test_keys_of_the_batch_against_loops() -> None:
    images, texts = units(0, SIZE), units(1, SIZE)
    signs = np.sign((images + texts).numpy())
    keys = [np.stack([signs[i], *np.delete(signs, i, axis=0)]) for i in range(SIZE)]
    found = first_cross_entropy(batch_logits(texts, images, texts, 0.9 * math.sqrt(BITS)))
    np.testing.assert_allclose(found, contrastive_by_loops(texts.numpy(), keys, 0.9), rtol=1e-12)


def test_own_pair_comes_first() -> None:
    assert own_first(3, torch.device("cpu")).tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert own_first(1, torch.device("cpu")).tolist() == [[0]]


def test_keys_are_drawn_with_replacement_from_all_items() -> None:
    this, items = method(keys=500), batch(ROWS)
    before = state(this)
    index = this.drawn_keys(items, before)
    assert index.shape == (SIZE, 501)
    assert index[:, 0].tolist() == ROWS
    counts = torch.bincount(index[:, 1:].flatten(), minlength=N)
    assert len(counts) == N
    # 3000 draws: 150 of each item, standard deviation 12.
    assert bool(((counts > 90) & (counts < 210)).all())
    assert all(bool((index[i, 1:] == own).any()) for i, own in enumerate(ROWS)), "the own item may be drawn"
    assert bool((index == this.drawn_keys(items, before)).all())
    later, other = before | {"step": before["step"] + 1}, state(this, seed=1)
    assert all(bool((index != this.drawn_keys(items, at)).any()) for at in (later, other))


def test_no_gradient_reaches_memory_or_keys() -> None:
    """A code moves its own logits alone: d/dh of -log softmax_0 is sum_j (p_j - [j = 0]) key_j / scale."""
    h, memory = units(0, SIZE).requires_grad_(), random(1, N, BITS).requires_grad_()
    index = torch.arange(SIZE * 3).reshape(SIZE, 3) % N
    logits = memory_logits(h, memory, index, 4.0)
    gradient, of_memory = torch.autograd.grad(first_cross_entropy(logits).sum(), (h, memory), allow_unused=True)
    assert of_memory is None
    surplus = logits.softmax(1) - torch.tensor([1.0, 0, 0])
    expected = (surplus[:, :, None] * memory.sign()[index]).sum(1) / 4.0
    torch.testing.assert_close(gradient, expected.detach())
    images, texts = units(0, SIZE).requires_grad_(), units(1, SIZE).requires_grad_()
    loss = first_cross_entropy(batch_logits(images, images, texts, 4.0)).sum()
    assert torch.autograd.grad(loss, (images, texts), allow_unused=True)[1] is None


# the memory


def test_memory_by_hand() -> None:
    """Mean of the codes (0.6, 0.8) and (1, 0): (0.8, 0.4), unit (2, 1) / sqrt 5; old row (0, 1)."""
    images, texts = torch.tensor([[0.6, 0.8]]), torch.tensor([[1.0, 0.0]])
    memory, index = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.tensor([1])
    root = math.sqrt(5)
    moved = np.array([0.6 * 2 / root, 0.4 + 0.6 / root])
    found = remembered(images, texts, memory, index, 0.4)
    assert found[1].tolist() == pytest.approx((moved / np.linalg.norm(moved)).tolist())
    assert found[[0, 2]].tolist() == memory[[0, 2]].tolist()
    paper = remembered(images, texts, memory, index, 0.4, unit=False)
    assert paper[1].tolist() == pytest.approx([0.6 * 0.8, 0.4 + 0.6 * 0.4])
    warm = remembered(images, texts, memory, index, 0.0)
    assert warm[1].tolist() == pytest.approx([2 / root, 1 / root])
    left = remembered(images, texts, memory, index, 0.4, valid=torch.tensor([False]))
    assert left.tolist() == memory.tolist()
    assert memory[1].tolist() == [0, 1], "inputs stay as they are"


@given(st.integers(0, 100), st.floats(0, 0.9))
def test_rows_of_the_released_memory_stay_units(seed: int, momentum: float) -> None:
    found = remembered(units(seed, SIZE), units(seed + 1, SIZE), units(seed + 2, N), torch.tensor(ROWS), momentum)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(N, dtype=torch.float64))


def test_first_memory_leans_to_minus_one() -> None:
    """P(2 z - 1 > 0) = P(z > 1/2) = 0.3085; of 200,000 signs the standard deviation is 0.001."""
    memory = first_memory(2000, 100, np.random.Generator(np.random.Philox(key=3)))
    assert set(np.unique(memory)) == {-0.1, 0.1}
    assert float((memory > 0).mean()) == pytest.approx(0.3085, abs=0.005)


def test_state_depends_on_the_run_alone() -> None:
    first, again, other = (state(method(), seed) for seed in (0, 0, 1))
    assert all(bool((first[name] == again[name]).all()) for name in first)
    assert bool((first["memory"] != other["memory"]).any())
    assert int(first["key"]) != int(other["key"])


# L_r


def ranking_by_loops(similarity: np.ndarray, margin: float, shift: float, kappa: float) -> np.ndarray:
    size, found = len(similarity), np.zeros(len(similarity))
    for scores in (similarity, similarity.T):
        for i in range(size):
            costs = [s if s >= scores[i, i] - margin else s - shift for s in scores[i]]
            found[i] += kappa * math.log(sum(math.exp(c / kappa) for c in costs)) - scores[i, i] + margin
    return found


@pytest.mark.parametrize(
    ("margin", "shift", "kappa"), [(0.2, 1.0, 1.0), (0.2, 0.1, 1.0), (0.5, 2.0, 0.3), (0.0, 0.0, 1.0)]
)
def test_ranking_loss_against_loops(margin: float, shift: float, kappa: float) -> None:
    images, texts = units(0, SIZE), units(1, SIZE)
    expected = ranking_by_loops((images @ texts.T).numpy(), margin, shift, kappa)
    np.testing.assert_allclose(ranking_loss(images, texts, margin, shift, kappa), expected, rtol=1e-12)


def test_ranking_loss_of_equal_codes() -> None:
    """All similarities are 1: nothing is shifted, each direction is log B + m."""
    h = units(0, 1).expand(5, BITS)
    found = ranking_loss(h, h, 0.2, 1.0)
    assert found.tolist() == pytest.approx([2 * (math.log(5) + 0.2)] * 5)


def test_a_score_on_the_margin_is_close() -> None:
    """Own similarity 1, the other 0.5, margin 0.5: not shifted; with a smaller margin shifted."""
    images = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    texts = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    close, far = (ranking_loss(images, texts, margin, 1.0)[0] for margin in (0.5, 0.25))
    assert float(close) == pytest.approx(2 * (math.log(math.exp(1) + math.exp(0.5)) - 1 + 0.5))
    assert float(far) == pytest.approx(2 * (math.log(math.exp(1) + math.exp(-0.5)) - 1 + 0.25))


# the method


@pytest.mark.parametrize("variant", VARIANTS)
def test_objective(variant: str) -> None:
    this, items = method(variant), batch(ROWS)
    before, params = state(this), Ucch.variants[variant]
    out, _ = step(this, items, before, "train")
    module = network(this)
    h = module.images(items.images), module.texts(items.texts)  # type: ignore[operator]
    index = this.drawn_keys(items, before)
    keys = [np.sign(before["memory"].numpy())[row] for row in index.numpy()]
    contrastive = sum(contrastive_by_loops(x.detach().numpy(), keys, 0.9) for x in h)
    ranked = ranking_by_loops((h[0] @ h[1].T).detach().numpy(), 0.2, params.shift, 1.0)
    expected = params.beta * contrastive + (1 - params.beta) * ranked
    assert out.sample_loss is not None
    np.testing.assert_allclose(out.sample_loss.detach(), expected, rtol=1e-11)
    assert float(total(out).detach()) == pytest.approx(float(expected.mean()), rel=1e-11)
    assert out.weight is None
    memory = remembered(*h, before["memory"], items.index, 0.4, variant != "paper")
    torch.testing.assert_close(out.state["memory"], memory)
    assert int(out.state["step"]) == 1


def test_first_epoch_takes_the_keys_of_the_batch_and_forgets() -> None:
    this, items = method(), batch(ROWS)
    before = state(this)
    out, _ = step(this, items, before, "warm-up")
    other, _ = step(this, items, before | {"memory": -before["memory"]}, "warm-up")
    assert float(total(out).detach()) == float(total(other).detach())
    torch.testing.assert_close(out.state["memory"][ROWS], other.state["memory"][ROWS])
    module = network(this)
    codes = module.images(items.images) + module.texts(items.texts)  # type: ignore[operator]
    torch.testing.assert_close(out.state["memory"][ROWS], torch.nn.functional.normalize(codes.detach(), dim=1))


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_filled_up_batch_is_the_smaller_batch(variant: str, update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are drawn by place; the smaller batch is given those of the larger one."""
    this, valid = method(variant), torch.tensor([True, True, False, True, False, True])
    before, whole = state(this), batch(ROWS, valid)
    index = this.drawn_keys(whole, before)
    padded, padded_gradients = step(this, whole, before, update)
    monkeypatch.setattr(this, "drawn_keys", lambda *_: index[valid])
    smaller, gradients = step(this, batch([row for row, kept in zip(ROWS, valid, strict=True) if kept]), before, update)
    torch.testing.assert_close(padded.loss, smaller.loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(padded_gradients, gradients, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(padded.state["memory"], smaller.state["memory"])
    assert padded.sample_loss is not None
    torch.testing.assert_close(padded.sample_loss[valid], smaller.sample_loss)


def test_nobody_valid_gives_no_loss_and_no_gradient() -> None:
    for update in UPDATES:
        before = state(method())
        out, gradients = step(method(), batch(ROWS, torch.zeros(SIZE, dtype=torch.bool)), before, update)
        assert float(total(out).detach()) == 0
        assert not any(bool(g.any()) for g in gradients.values())
        assert bool((out.state["memory"] == before["memory"]).all())


def test_what_an_epoch_does() -> None:
    def update(variant: str, epoch: int, epochs: int = 10) -> str:
        (walk,) = method(variant, epochs).passes(epoch)
        assert isinstance(walk, Pass)
        assert (walk.draws, walk.last_batch) == ({"all": SIZE}, "drop")
        (only,) = walk.updates
        return only.name

    assert [update("released", epoch) for epoch in range(3)] == ["warm-up", "train", "train"]
    assert update("paper", 0) == "train"
    assert update("released", 0, epochs=1) == "train", "one epoch is left for the method itself"


def test_recipe_is_that_of_the_authors() -> None:
    assert Ucch.recipe is not None
    rule = Ucch.recipe.optimizer
    assert (Ucch.recipe.epochs, Ucch.recipe.batch_size) == (20, 256)
    assert (rule.rule, rule.learning_rate, rule.decay, rule.decay_on, rule.clip_norm) == (
        "adam",
        1e-4,
        1e-6,
        "all",
        1.0,
    )
    # Divided by 10 at 30, 60 and 90 epochs, one epoch late.
    factors = [rule.schedule.factor_at(Progress(epoch, 100, 0, 1)) for epoch in (0, 30, 31, 60, 61, 91)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_heads_have_a_bias_and_unit_rows() -> None:
    module = network(method())
    assert "image_head.4.bias" in dict(module.named_parameters())
    rows = module.images(random(0, 7, 5)), module.texts(random(1, 7, 3))  # type: ignore[operator]
    for h in rows:
        torch.testing.assert_close(h.norm(dim=1), torch.ones(7, dtype=torch.float64))


def trained(seeds: list[int], labels: Tensor) -> dict[str, Tensor]:
    """Parameters and memory of runs of these seeds with labels ``[runs, N, K]``, after three steps whose last item is a fill-up."""
    this, runs, train = method(), len(seeds), train_view()
    optimizer = Optimizer("adam", 1e-2, (0.9, 0.999), 1e-8, decay=0.0, clip_norm=1.0, schedule=Schedule("constant"))
    this.optimizers = lambda: {"net": optimizer}  # type: ignore[method-assign]
    given = {"image_of_pair": torch.arange(N).expand(runs, N), "labels": labels}
    driver = BatchedDriver(
        this, {"net": [network(this, seed) for seed in seeds]}, Tables(train.images, train.captions, given)
    )
    driver.start_states([Seeded(seed) for seed in seeds])  # type: ignore[misc]
    index = torch.tensor(ROWS).expand(1, runs, SIZE)
    drawn = Draws(index, torch.arange(SIZE).expand(index.shape) < 5, np.ones((1, runs), bool))
    for update in ("warm-up", "train", "train"):
        driver.step(Update(update), PassPlan({"all": drawn}, np.ones(runs, dtype=int)), 0, {"net": [1.0] * runs})
    return driver.params["net"] | {"memory": driver.state["memory"]}


def test_runs_side_by_side_are_runs_alone() -> None:
    labels = torch.zeros(3, N, 4, dtype=torch.float64)
    together = trained([0, 1, 2], labels)
    for run in range(3):
        alone = trained([run], labels[:1])
        for key, value in together.items():
            torch.testing.assert_close(value[run], alone[key][0], rtol=1e-9, atol=1e-12)


def test_labels_change_nothing() -> None:
    labels = torch.stack([torch.zeros(N, 4), torch.ones(N, 4)]).double()
    for value in trained([0, 0], labels).values():
        assert bool((value[0] == value[1]).all())

"""HaNa: worked values of hana.md section 7, the objective against plain torch, degenerate batches, and NPC as its special case."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nocobench.methods.backbones import Towers
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Spec, StepOutput, batch_from
from nocobench.methods.hana import HaNa, hardness_factor, momentum, negative_push, rank_within
from nocobench.methods.npc import Npc
from nocobench.methods.optim import Optimizer
from nocobench.methods.partition import mixture_unless_equal, separation_ratio
from nocobench.protocols.contract_checks import Trial, small_protocol
from nocobench.protocols.drivers import Tables
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.utils._pytree import tree_map

N, SIZE, DIM = 24, 8, 5
PAPER = HaNa.Params()


@dataclass
class Scene:
    """One method on 24 random pairs, in float64, with its network, state and the first batch."""

    method: Any
    net: BoundNetwork
    train: Any
    state: dict[str, Any]

    def batch(self, index: Tensor | None = None, valid: Tensor | None = None) -> Batch:
        return batch_from(self.train, torch.arange(SIZE) if index is None else index, valid)

    def loss(
        self, batch: Batch | None = None, update: str = "train", **state: Any
    ) -> tuple[StepOutput, dict[str, Tensor]]:
        """The output and the gradient of the summed loss."""

        params = {name: value.clone().requires_grad_() for name, value in self.net.params.items()}
        net = BoundNetwork(self.net.module, params, self.net.learning_rate)
        out = self.method.loss({"net": net}, {"all": batch or self.batch()}, self.state | state, update)
        gradient = torch.autograd.grad(sum(out.loss.values()), list(params.values()))
        return out, dict(zip(params, gradient, strict=True))

    def signals(self, losses: np.ndarray, mismatched: float = 9.0) -> dict[str, Tensor]:
        return {"loss": torch.from_numpy(losses), "mismatched": torch.full((N,), mismatched, dtype=torch.float64)}

    def partition(self, losses: np.ndarray, epoch: int, **signals: Any) -> Any:
        with torch.no_grad():
            found = self.method.partition(
                {"net": self.net}, self.train, self.signals(losses, **signals), self.state, epoch
            )
        self.state |= found.state
        return found


def scene(params: Any = PAPER, cls: Any = HaNa, epochs: int = 8, seed: int = 0, duplicates: bool = False) -> Scene:
    spec = Spec(
        N, N, DIM, DIM, False, Backbone("mlp", 7, 4, False, 5.0), Budget(epochs, SIZE, Optimizer(learning_rate=0.01))
    )
    generator = torch.Generator().manual_seed(seed)
    images, captions = (torch.randn(N, DIM, generator=generator, dtype=torch.float64) for _ in range(2))
    if duplicates:
        captions[:SIZE] = captions[0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Towers(spec).double().eval()
    bound = BoundNetwork(module, {k: v.detach() for k, v in module.named_parameters()}, torch.tensor(0.01).double())
    train = Tables(images, captions, {"image_of_pair": torch.arange(N)[None]}).of_run(0)
    method = cls(params, spec)
    state = dict(method.state(train, {"net": bound}, None))
    bank = torch.randint(0, N, (2, N), generator=generator)
    state |= {"bank_of_image": bank[0], "bank_of_text": bank[1]}
    return Scene(method, bound, train, state)


def nce(net: BoundNetwork, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Losses and matching probabilities by torch's own cross entropy."""
    logits = net.logits(batch.images, batch.texts)
    target = torch.arange(len(logits))
    losses = (
        F.cross_entropy(logits, target, reduction="none") + F.cross_entropy(logits.mT, target, reduction="none")
    ) / 2
    return losses, logits.softmax(1).diagonal(), logits.softmax(0).diagonal()


def two_groups(noisy: int = 8) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    return np.concatenate([generator.normal(1.0, 0.2, N - noisy), generator.normal(6.0, 0.5, noisy)])


# Worked values


def test_push_by_hand() -> None:
    """p = 0.6, m = 0.1, gamma = 1: x = 0.5, a = 0.5 * ln 2 = 0.34657; d a / d p = 0.5 / (1 - 0.5) = 1, as sg(x) is constant."""
    p = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    a = negative_push(p, 0.1, 1.0)
    assert a.item() == pytest.approx(0.34657, abs=5e-6)
    assert torch.autograd.grad(a, p)[0].item() == pytest.approx(1.0)


def test_push_is_exactly_zero_below_the_margin_and_bounded_above() -> None:
    p = torch.tensor([0.0, 0.05, 0.1], dtype=torch.float64, requires_grad=True)
    a = negative_push(p, 0.1, 1.0)
    assert a.tolist() == [0, 0, 0]
    assert torch.autograd.grad(a.sum(), p)[0].tolist() == [0, 0, 0]
    assert negative_push(torch.tensor(1.0).double(), 0.0, 0.0).item() == pytest.approx(-math.log(1e-4))
    assert negative_push(torch.tensor([0.0, 0.5]).double(), 0.0, 0.0).tolist() == pytest.approx([0.0, math.log(2)])


def test_hardness_factor_by_hand() -> None:
    """hbar (0.1, 0.2, 0.6): mean 0.3, sd (n-1) 0.26458; z = (-0.756, -0.378, 1.134); 1 - 0.5 tanh(z)."""
    average = torch.tensor([0.1, 0.2, 0.6], dtype=torch.float64)
    factor = hardness_factor(average, torch.ones(3, dtype=torch.bool), 0.5, -1.0)
    assert factor.tolist() == pytest.approx([1.3193, 1.1805, 0.5938], abs=5e-5)


def test_hardness_factor_uses_the_clean_pairs_only() -> None:
    average = torch.tensor([0.1, 0.9, 0.2, 0.6], dtype=torch.float64)
    clean = torch.tensor([True, False, True, True])
    assert hardness_factor(average, clean, 0.5, -1.0)[clean].tolist() == pytest.approx(
        [1.3193, 1.1805, 0.5938], abs=5e-5
    )
    for few in (torch.zeros(4, dtype=torch.bool), torch.arange(4) == 1):
        assert hardness_factor(average, few, 0.5, -1.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("level", [-1.0, 0.3, 1.0])
def test_hardness_factor_stays_in_its_range(level: float) -> None:
    average = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 6
    factor = hardness_factor(average, average < 0.9, 0.5, level)
    assert float(factor.min()) >= 0.5
    assert float(factor.max()) <= 1.5
    order = average.argsort()
    assert bool((factor[order].diff() * level >= 0).all()), "lambda > 0 raises hard pairs, lambda < 0 easy ones"


def test_rank_by_hand() -> None:
    """Clean losses 1, 3, 4: shares 0, 1/2, 1; the noisy 2 has one of two others below, the noisy 9 all three (cut at 1)."""
    losses, clean = torch.tensor([3.0, 1.0, 2.0, 9.0, 4.0]), torch.tensor([True, True, False, False, True])
    assert rank_within(losses, clean).tolist() == [0.5, 0.0, 0.5, 1.0, 1.0]


def test_momentum_starts_with_the_first_value() -> None:
    got = momentum(torch.tensor([math.nan, 1.0]), torch.tensor([3.0, 2.0]), 0.7)
    assert got.tolist() == pytest.approx([3.0, 1.3])
    assert momentum(torch.tensor([1.0]), torch.tensor([2.0]), 0.0).tolist() == [2.0]


def test_levels_of_the_presets() -> None:
    """8 epochs, 3 of warm-up: the ramp is 8 - 3 - 1 = 4 epochs."""
    for variant, expected in (("paper", [-1, -1, -1, -1, -1]), ("up", [-1, -0.625, -0.25, 0.125, 0.5])):
        method = scene(HaNa.variants[variant]).method
        levels = [method.levels(epoch, torch.zeros(())) for epoch in range(3, 8)]
        assert [float(level["hardness_level"]) for level in levels] == pytest.approx(expected)
        assert [float(level["anrl_level"]) for level in levels] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert float(scene(epochs=1).method.levels(0, torch.zeros(()))["anrl_level"]) == 0


# Objective


def mixed_state() -> dict[str, Tensor]:
    """Half of the batch is noisy; averages from an earlier epoch; some pairs never seen."""
    probability = torch.linspace(0.05, 0.95, N, dtype=torch.float64)[torch.arange(N) * 5 % N]
    average = torch.where(torch.arange(N) % 3 == 0, torch.nan, torch.linspace(0, 1, N, dtype=torch.float64))
    level = torch.tensor(1.0, dtype=torch.float64)
    return {
        "clean_probability": probability, "hardness_average": average, "hardness_level": -level, "anrl_level": 0.5 * level,
    }  # fmt: skip


def test_objective_against_plain_torch() -> None:
    """Loss and gradient of (3.3) to (3.6), written with torch's cross entropy; w and q enter as constants."""
    here = scene(replace(PAPER, anrl_margin=0.02))
    state = mixed_state()
    out, gradient = here.loss(**state)
    params = {k: v.clone().requires_grad_() for k, v in here.net.params.items()}
    net, batch = here.net.at(params), here.batch()
    losses, p1, p2 = nce(net, batch)

    p = state["clean_probability"][:SIZE].numpy()
    clean = p >= 0.5
    assert 2 <= clean.sum() < SIZE
    h = 1 - (p1 + p2).detach().numpy() / 2
    old = state["hardness_average"][:SIZE].numpy()
    hbar = np.where(np.isnan(old), h, 0.7 * old + 0.3 * h)
    z = (hbar - hbar[clean].mean()) / (hbar[clean].std(ddof=1) + 1e-6)
    w = np.where(clean, np.clip(p * (1 - 0.5 * np.tanh(z)), 0, 2), p)
    np.testing.assert_allclose(out.weight, w, rtol=1e-10)
    np.testing.assert_allclose(out.state["hardness_average"][:SIZE], hbar, rtol=1e-10)

    weight = torch.from_numpy(w)
    positive = (weight * losses).sum() / (weight.sum() + 1e-6)
    sides = [batch.at(here.state[f"bank_of_{side}"][batch.index]) for side in ("image", "text")]
    bank = 0.5 * sum(nce(net, side)[0].mean() for side in sides)
    q = torch.from_numpy(np.where(clean, 0.0, 1 - p))
    excess = [(probability - 0.02).clamp(min=0) for probability in (p1, p2)]
    push = sum(x.detach() * -torch.log(1 - x) for x in excess) / 2
    anrl = 0.5 * (q * push).sum() / SIZE
    assert float(anrl.detach()) > 0
    for name, value in (("positive", positive), ("bank", bank), ("anrl", anrl)):
        torch.testing.assert_close(out.loss[name], value.detach(), rtol=1e-10, atol=0)
    (positive + bank + anrl).backward()
    for name, value in params.items():
        torch.testing.assert_close(gradient[name], value.grad, rtol=1e-8, atol=1e-12)


def test_warm_up_is_infonce() -> None:
    here = scene()
    out, _ = here.loss(update="warm up")
    torch.testing.assert_close(out.loss["contrastive"], nce(here.net, here.batch())[0].mean(), rtol=1e-10, atol=0)
    assert out.weight is None


def test_kappa_of_one_is_infonce_and_of_zero_removes_noisy_pairs() -> None:
    here = scene()
    batch = here.batch()
    logits = here.net.logits(batch.images, batch.texts)
    clean = torch.tensor([True, True, False, True, False, True, True, False])

    def with_kappa(kappa: float) -> Tensor:
        return HaNa(replace(PAPER, kappa=kappa), here.method.spec)._less_noisy_negatives(logits, clean, None)

    torch.testing.assert_close(with_kappa(1.0), nce(here.net, batch)[0], rtol=1e-10, atol=0)
    mass = torch.where(clean, 1.0, 0.5).double()
    for i in (1, 2):  # a clean and a noisy pair, both with their own entry in full
        own = torch.where(torch.arange(SIZE) == i, 1.0, mass)
        rows = -torch.log(logits[i, i].exp() / (own * logits[i].exp()).sum())
        columns = -torch.log(logits[i, i].exp() / (own * logits[:, i].exp()).sum())
        torch.testing.assert_close(with_kappa(0.5)[i], (rows + columns) / 2, rtol=1e-10, atol=0)
    kept = replace(batch, index=batch.index[clean], images=batch.images[clean], texts=batch.texts[clean])
    # The removed pairs keep a factor of 1e-4.
    torch.testing.assert_close(with_kappa(0.0)[clean], nce(here.net, kept)[0], rtol=0, atol=0.05)
    assert float((with_kappa(1.0) - with_kappa(0.0)).min()) > 0


def test_soft_confidence_is_the_likelihood() -> None:
    """exp(-l / T), times p for soft_gmm; no gradient through it (the warm-up state is p = 1)."""
    here = scene(HaNa.variants["soft"])
    out, _ = here.loss(clean_probability=torch.full((N,), 0.8, dtype=torch.float64))
    losses = nce(here.net, here.batch())[0]
    torch.testing.assert_close(out.weight, 0.8 * torch.exp(-losses / 0.5), rtol=1e-10, atol=0)
    assert set(out.loss) == {"positive", "anrl"}


CHANGES: dict[str, dict[str, Any]] = {
    **{f"confidence {kind}": {"confidence": kind} for kind in ("product", "soft", "soft_gmm")},
    **{f"hardness {kind}": {"hardness": kind} for kind in ("hinge", "rank")},
    **{f"anrl {kind}": {"anrl_type": kind} for kind in ("nlog", "hinge", "sigmoid")},
    "batch norm, kappa": {"norm": "batch", "kappa": 0.3},
    "focus, up": {"anrl_gamma": 2.0, "anrl_margin": 0.0, "lambda_start": 1.0, "lambda_end": 1.0},
}
SWITCHES = dict(HaNa.variants) | {name: replace(PAPER, **changes) for name, changes in CHANGES.items()}
PROBABILITIES = {
    "no noisy pair": 1.0,
    "no clean pair": 0.0,
    "undecided": 0.5,
    "one pair": 0.3,
    "duplicate captions": 0.3,
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_everything_stays_finite(switch: str) -> None:
    params, one = SWITCHES[switch], torch.tensor(1.0, dtype=torch.float64)
    for what in [*PROBABILITIES, "one clean pair"]:
        here = scene(params, duplicates=what == "duplicate captions")
        probability = torch.full((N,), PROBABILITIES.get(what, 0.3)).double()
        if what == "one clean pair":
            probability[3] = 0.9
        valid = torch.arange(SIZE) == 2 if what == "one pair" else None
        state = {"clean_probability": probability, "hardness_level": -one, "anrl_level": one}
        out, gradient = here.loss(here.batch(valid=valid), **state)
        assert all(bool(value.isfinite().all()) for value in gradient.values()), what
        assert all(bool(value.isfinite()) for value in out.loss.values()), what
        assert out.weight is not None
        assert not out.weight.requires_grad
        counted = out.weight if valid is None else out.weight[valid]
        assert 0 <= float(counted.min()) <= float(counted.max()) <= 2, what
        if what == "no noisy pair" and params.confidence in ("gmm", "npc") and "anrl" in out.loss:
            assert float(out.loss["anrl"].detach()) == 0


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_maps_over_runs(switch: str) -> None:
    """Two runs side by side give what each gives alone; this is how the engine calls the method."""
    runs = [scene(SWITCHES[switch], seed=seed) for seed in (0, 1)]
    weights = {k: torch.stack([run.net.params[k] for run in runs]) for k in runs[0].net.params}
    state = tree_map(lambda *leaves: torch.stack(leaves), *(run.state | mixed_state() for run in runs))
    images, captions = (torch.stack([getattr(run.train, name) for run in runs]) for name in ("images", "captions"))

    def one(params: Any, state: Any, images: Tensor, captions: Tensor) -> Tensor:
        train = Tables(images, captions, {"image_of_pair": torch.arange(N)[None]}).of_run(0)
        net = BoundNetwork(runs[0].net.module, params, runs[0].net.learning_rate)
        out = runs[0].method.loss({"net": net}, {"all": batch_from(train, torch.arange(SIZE), None)}, state, "train")
        return sum(out.loss.values())

    together = torch.func.vmap(torch.func.grad(one))(weights, state, images, captions)
    for slot, run in enumerate(runs):
        _, alone = run.loss(**mixed_state())
        for name, value in alone.items():
            torch.testing.assert_close(together[name][slot], value, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("params", [PAPER, replace(PAPER, confidence="soft_gmm")])
def test_state_belongs_to_pairs_not_to_places_in_the_batch(params: Any) -> None:
    here = scene(params)
    index = torch.arange(SIZE) * 2
    shuffled = index[torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])]
    one, other = (here.loss(here.batch(order), **mixed_state())[0] for order in (index, shuffled))
    before = mixed_state()["hardness_average"]
    for name, value in one.state.items():
        torch.testing.assert_close(value, other.state[name], rtol=1e-10, atol=1e-12, equal_nan=True)
    rest = torch.ones(N, dtype=torch.bool).index_fill(0, index, False)
    torch.testing.assert_close(one.state["hardness_average"][rest], before[rest], rtol=0, atol=0, equal_nan=True)
    assert bool(one.state["hardness_average"][index].isfinite().all())


# Partition, guard, bank


def test_posterior_of_averaged_losses_against_scikit_learn() -> None:
    here = scene(replace(PAPER, momentum_beta=0.6))
    first, second = two_groups(), two_groups()[::-1].copy() * 0.3 + 1
    here.partition(first, 3)
    found = here.partition(second, 4)
    average = 0.6 * first + 0.4 * second
    np.testing.assert_allclose(here.state["loss_average"], average, rtol=1e-12)
    x = ((average - average.min()) / (average.max() - average.min()))[:, None]
    theirs = GaussianMixture(2, max_iter=20, tol=1e-2, reg_covar=5e-4, n_init=5, random_state=0).fit(x)
    expected = theirs.predict_proba(x)[:, theirs.means_.argmin()]
    np.testing.assert_allclose(found.clean_probability["net"], expected, rtol=1e-6, atol=1e-9)
    assert found.facts["estimated_noise_rate"] == np.mean(expected < 0.5)


def test_flips_are_counted() -> None:
    here = scene(replace(PAPER, momentum_beta=0.0))
    here.partition(two_groups(), 3)
    assert here.partition(two_groups(), 4).facts["flips_in_epoch_5"] == 0
    moved = np.roll(two_groups(), 2)  # noisy pairs 16..23 become 0, 1, 18..23
    assert here.partition(moved, 5).facts["flips_in_epoch_6"] == 4 / N


def test_momentum_on_the_posterior() -> None:
    here = scene(replace(PAPER, momentum_on="posterior", momentum_beta=0.6))
    first = here.partition(two_groups(), 3).clean_probability["net"].clone()
    second = here.partition(two_groups()[::-1].copy(), 4).clean_probability["net"]
    fresh = scene(replace(PAPER, momentum_beta=0.0)).partition(two_groups()[::-1].copy(), 3).clean_probability["net"]
    torch.testing.assert_close(second, 0.6 * first + 0.4 * fresh, rtol=1e-10, atol=0)
    np.testing.assert_allclose(here.state["loss_average"], two_groups()[::-1])


def test_separation_ratio_by_hand() -> None:
    """Low side mean 1, high side mean 3, mismatched 5: (3 - 1) / (5 - 1)."""
    losses, posterior = torch.tensor([1.0, 1.0, 2.0, 4.0]), torch.tensor([0.9, 0.5, 0.4, 0.0])
    assert separation_ratio(losses, posterior, torch.tensor([4.0, 6.0])) == 0.5
    assert separation_ratio(losses, torch.ones(4), torch.tensor([5.0])) == 0
    assert separation_ratio(losses, torch.zeros(4), torch.tensor([5.0])) == 0
    assert separation_ratio(losses, posterior, torch.tensor([0.5])) == 1


def test_guard_declares_a_clean_set_clean_for_good() -> None:
    """Mean losses 1 and 6 on the two sides: ratio 5 / (m_mis - 1) = 0.1 for m_mis = 51, 0.5 for 11."""
    for params, mismatched, fires in (
        (PAPER, 51.0, True),
        (PAPER, 11.0, False),
        (HaNa.variants["no_guard"], 51.0, False),
    ):
        here = scene(params)
        found = here.partition(two_groups(), 3, mismatched=mismatched)
        assert found.facts["guard_ratio"] == pytest.approx(5 / (mismatched - 1), rel=0.05)
        assert (found.facts["no_noise_found"] == 1) is fires
        later = here.partition(two_groups(), 4)
        for partition in (found, later):
            assert bool((partition.clean_probability["net"] == 1).all()) is fires
            assert (partition.facts["estimated_noise_rate"] == 0) is fires


def test_mismatched_pairs_get_the_next_text() -> None:
    here = scene()
    batch = here.batch()
    signals = here.method.signals({"net": here.net}, batch, here.state, 3)
    torch.testing.assert_close(signals["loss"], nce(here.net, batch)[0], rtol=1e-10, atol=0)
    moved = replace(batch, texts=batch.texts[torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])])
    torch.testing.assert_close(signals["mismatched"], nce(here.net, moved)[0], rtol=1e-10, atol=0)
    assert set(here.method.signals({"net": here.net}, batch, here.state, 4)) == {"loss"}


@pytest.mark.parametrize("spread", [0.0, 5e-7])
def test_equal_losses_count_as_clean(spread: float) -> None:
    losses = np.full(N, 2.0) + spread * np.linspace(0, 1, N)
    found = scene().partition(losses, 3)
    assert bool((found.clean_probability["net"] == 1).all())
    for normalise in (True, False):
        assert mixture_unless_equal(torch.from_numpy(losses), 20, 1e-2, 5e-4, normalise) is None


def test_diverged_losses_are_refused() -> None:
    losses = two_groups()
    losses[3] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        scene().partition(losses, 3)


def test_bank_pairs() -> None:
    """Enough sure pairs: those; fewer than a batch: the max(batch, 5%) most probable ones, or all that NPC's recipe finds."""
    probability = torch.linspace(0, 1, N, dtype=torch.float64)
    assert int(scene(replace(PAPER, bank_threshold=0.5)).method.trusted_pairs(probability).sum()) == N // 2
    few = scene().method.trusted_pairs(probability)
    assert few.nonzero().squeeze(1).tolist() == list(range(N - SIZE, N))
    assert int(scene(HaNa.variants["npc"]).method.trusted_pairs(probability).sum()) == int((probability > 0.9).sum())
    many = torch.linspace(0, 0.8, 20 * 20, dtype=torch.float64)
    assert int(scene().method.trusted_pairs(many).sum()) == 20


def test_bank_is_frozen_unless_asked() -> None:
    for refresh in (False, True):
        here = scene(replace(PAPER, bank_refresh=refresh, momentum_beta=0.0))
        first = here.partition(two_groups(), 3).state["bank_of_image"]
        assert bool((first < N - 8).all()), "only pairs of the clean side are in the bank"
        assert ("bank_of_image" in here.partition(two_groups()[::-1].copy(), 4).state) is refresh


# NPC


def test_with_everything_off_it_is_npc() -> None:
    """hana.md 3.7: same bank, losses, weights, gradients and look-ahead moments as NPC's paper variant on the same batches."""
    hana, npc = (scene(*what, seed=2) for what in ((HaNa.variants["npc"],), (Npc.variants["paper"], Npc)))
    for here in (hana, npc):
        here.partition(two_groups(), 3)
    for name in ("bank_of_image", "bank_of_text", "clean_probability"):
        torch.testing.assert_close(hana.state[name], npc.state[name], rtol=1e-12, atol=0)
    weights = []
    for start in (0, SIZE, 2 * SIZE):
        (ours, gradient), (theirs, expected) = (s.loss(s.batch(torch.arange(start, start + SIZE))) for s in (hana, npc))
        torch.testing.assert_close(ours.loss["positive"], theirs.loss["weighted"], rtol=1e-10, atol=0)
        torch.testing.assert_close(ours.loss["bank"], theirs.loss["bank"], rtol=1e-10, atol=0)
        assert set(ours.loss) == {"positive", "bank"}
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-10, atol=0)
        torch.testing.assert_close(ours.sample_loss, theirs.sample_loss, rtol=1e-10, atol=0)
        for name, value in expected.items():
            torch.testing.assert_close(gradient[name], value, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(ours.state["ahead"], theirs.state["ahead"], rtol=1e-9, atol=1e-13)
        weights.append(theirs.weight)
        hana.state |= ours.state
        npc.state |= theirs.state
    assert 0 < float((torch.cat(weights) < 1).double().mean()) < 1, "both kinds of weight occur"
    assert hana.method.optimizers() == npc.method.optimizers()


def test_with_everything_off_it_trains_like_npc() -> None:
    outcomes = []
    for name, variant in (("hana", "npc"), ("npc", "paper")):
        trial = Trial(name, variant, small_protocol())
        records = {(r.cell.rate, r.cell.seed): r.outcome for r in trial.run(trial.cells).values()}
        outcomes.append({key: (o.last, o.selected, o.gradient_steps) for key, o in records.items()})
    assert outcomes[0] == outcomes[1]

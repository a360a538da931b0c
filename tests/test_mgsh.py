"""MGSH beyond its oracles: both sets of equations against loops, masks against smaller batches, the meta steps, selection and grants."""

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
from nocobench.methods.contract import Backbone, Batch, BoundNetwork, Budget, Spec
from nocobench.methods.mgsh import (
    Mgsh,
    WeightNet,
    adaptive_margin,
    alignment_target,
    hinge_on_strangers,
    moved_centers,
    shuffled_within,
    small_loss_mask,
)
from nocobench.methods.nrch import given_labels, mean_over, normalised
from nocobench.methods.optim import Optimizer
from nocobench.methods.registry import MethodError
from nocobench.protocols.contract_checks import Trial, small_label_protocol
from nocobench.protocols.protocol import Grants
from torch import Tensor

N, N_META, K, BITS, EPOCHS = 12, 8, 4, 16, 10
KEEP = torch.tensor([True, False, True, True, False, True, True, False, True, False, True, True])


def method(variant: str = "released", epochs: int = EPOCHS, **changes: Any) -> Mgsh:
    backbone = Backbone("hashing", hidden=32, dim=16, normalise_inputs=False)
    spec = Spec(
        N,
        N,
        5,
        3,
        False,
        backbone,
        Budget(epochs, N, Optimizer(decay=0.1)),
        N_META,
        frozenset(Mgsh.needs),
        K,
        True,
        BITS,
    )
    return Mgsh(replace(Mgsh.variants[variant], **changes), spec)


def networks(this: Mgsh) -> dict[str, BoundNetwork]:
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, build in this.networks().items():
            module = build().double()
            found[name] = BoundNetwork(module, dict(module.named_parameters()), torch.tensor(0.1, dtype=torch.float64))
    return found


def items(n: int = N, seed: int = 0, own_text_labels: bool = True) -> Batch:
    """Items with up to three labels; the third has none, and nobody has the last class."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for dim in (5, 3))
    labels, others = ((torch.rand(n, K, generator=generator) < 0.4).double() for _ in range(2))
    for rows in (labels, others):
        rows[2] = 0
        rows[:, -1] = 0
    index = torch.arange(n)
    return Batch(index, images, texts, index, labels=labels, text_labels=others if own_text_labels else labels)


def part(batch: Batch, chosen: Tensor) -> Batch:
    columns = {name: getattr(batch, name)[chosen] for name in ("index", "images", "texts", "image_id", "labels")}
    assert batch.text_labels is not None
    return Batch(**columns, text_labels=batch.text_labels[chosen])


class Cell:
    """A run that tells a nominal noise rate, or none."""

    def __init__(self, rate: float | None = 0.4) -> None:
        self.noise_rate = rate

    def generator(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(len(purpose)))


def view(n: int = N) -> TrainView:
    return TrainView(torch.zeros(n, 5, dtype=torch.float64), torch.zeros(n, 3), torch.arange(n))


def state(this: Mgsh, kept: Tensor | None = None, rate: float | None = 0.4) -> dict[str, Any]:
    found = dict(this.state(view(), {}, Cell(rate)))  # type: ignore[arg-type]
    return found if kept is None else found | {"kept": kept.double()}


def step(this: Mgsh, update: str, batch: Batch, kept: Tensor | None = None, meta: Batch | None = None) -> Any:
    """What ``loss`` returns, and the gradients of the update's own network (the heads', or the weight network's)."""
    nets, before = networks(this), state(this, kept)
    out = this.loss(nets, {"all": batch, "meta": items(N_META, 7) if meta is None else meta}, before, update)
    assert isinstance(out.loss, dict)
    trained = nets["weight" if update == "fit weights" else "net"].params
    total = sum(out.loss.values())
    return out, dict(zip(trained, torch.autograd.grad(total, list(trained.values())), strict=True))


def codes(n: int = N, seed: int = 1, unit: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(n, BITS, generator=generator, dtype=torch.float64) for _ in range(2))
    if not unit:
        return first.tanh(), second.tanh()
    return torch.nn.functional.normalize(first, dim=1), torch.nn.functional.normalize(second, dim=1)


def centre_losses(u: np.ndarray, v: np.ndarray, batch: Batch, centers: np.ndarray, r: float) -> np.ndarray:
    total = np.zeros(len(u))
    for h, labels in zip((u, v), given_labels(batch), strict=True):
        scores = np.exp(h @ centers.T)
        p = (labels.numpy() * scores).sum(1) / scores.sum(1)
        total += (1 - r) * (1 - p**r) / r + r * (1 - p)
    return total


def released_by_loops(
    this: Mgsh, u: np.ndarray, v: np.ndarray, batch: Batch, centers: np.ndarray, margin: np.ndarray
) -> Any:
    """3.2 term by term."""
    p, u, v = this.params, np.tanh(u), np.tanh(v)
    similarity, (labels, others) = u @ v.T, given_labels(batch)
    ranking = np.zeros(len(u))
    for i in range(len(u)):
        for direction in (1, 2):
            total = 0.0
            for j in range(len(u)):
                own = similarity[i, i] if direction == 1 else similarity[j, j]
                cost = similarity[i, j] if similarity[i, j] >= own - margin[i] else similarity[i, j] - 1
                if i == j:
                    cost = max(similarity[i, i], 0.0)
                elif float(labels[i] @ others[j]) > 0:
                    cost = 0.0
                total += math.exp(cost / p.tau)
            ranking[i] += -similarity[i, i] + p.tau * math.log(total) + margin[i]
    quantised = sum(((np.abs(x) - BITS**-0.5) ** 2).mean(1) for x in (u, v))
    centre = centre_losses(u, v, batch, centers, p.r).mean()
    return p.mix * ranking + (1 - p.mix) * (centre + quantised)


def paper_by_loops(
    this: Mgsh, u: np.ndarray, v: np.ndarray, batch: Batch, centers: np.ndarray, margin: np.ndarray
) -> Any:
    """P4 to P7 term by term."""
    labels, others = given_labels(batch)
    share = (labels @ others.mT).numpy() > 0

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    hinges = np.zeros(len(u))
    for i in range(len(u)):
        own = distance(u[i], v[i])
        of_image = [max(0, margin[i] + own - distance(u[i], v[k])) for k in range(len(u)) if k != i and not share[i, k]]
        of_text = [max(0, margin[i] + own - distance(v[i], u[k])) for k in range(len(u)) if k != i and not share[k, i]]
        hinges[i] = sum(np.mean(side) if side else 0.0 for side in (of_image, of_text)) / 2
    quantised = sum(((np.abs(x) - 1) ** 2).mean(1) for x in (u, v))
    centre = centre_losses(u, v, batch, centers, this.params.r)
    return hinges + this.params.center_weight * centre + this.params.quantisation_weight * quantised


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("one_margin", [True, False])
def test_loss_against_loops(variant: str, one_margin: bool) -> None:
    this, batch = method(variant), items()
    (u, v), centers = codes(unit=variant == "released"), state(this)["centers"]
    margin = torch.full((N,), 0.5) if one_margin else torch.rand(N, generator=torch.Generator().manual_seed(3))
    ours = this.per_item(u, v, batch, centers, 0.5 if one_margin else margin.double())
    loops = released_by_loops if variant == "released" else paper_by_loops
    expected = loops(this, u.numpy(), v.numpy(), batch, centers.numpy(), margin.double().numpy())
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def test_hinge_by_hand() -> None:
    """Cosines of image 1: own 0.6, stranger 0.8, neighbour 1; margin 0.3 -> 0.3 + 0.8 - 0.6 = 0.5. Text 1: stranger 0, -> 0."""
    f1 = torch.tensor([[1.0, 0.0], [-0.8, 0.6], [0.0, 2.0]])
    f2 = torch.tensor([[0.6, 0.8], [0.8, 0.6], [3.0, 0.0]])
    shares = torch.zeros(3, 3, dtype=torch.bool)
    shares[0, 2] = shares[2, 0] = True
    found = hinge_on_strangers(f1, f2, shares, torch.full((3,), 0.3))
    assert float(found[0]) == pytest.approx((0.5 + 0.0) / 2)
    everyone = hinge_on_strangers(f1, f2, ~torch.eye(3, dtype=torch.bool), 0.3)
    assert everyone.tolist() == [0, 0, 0], "nobody to compare with"


def test_all_labels_given_leave_the_matched_score_alone() -> None:
    """3.2, meta step 1: l_i = lambda 2 [-S_ii + tau log(exp(max(S_ii, 0) / tau) + B - 1) + gamma] + (1 - lambda) l^q_i."""
    this, nets, meta = method(), networks(method()), items(N_META, 7)
    p = this.params
    found = this.loss(nets, {"all": items(), "meta": meta}, state(this), "pull pairs").loss
    assert isinstance(found, dict)
    u, v = nets["net"].images(meta.images).tanh(), nets["net"].texts(meta.texts).tanh()
    own = (u * v).sum(1)
    ranking = 2 * (-own + p.tau * ((own.clamp(min=0) / p.tau).exp() + N_META - 1).log() + p.gamma)
    quantised = sum((x.abs() - BITS**-0.5).square().mean(1) for x in (u, v))
    torch.testing.assert_close(found["meta"], (p.mix * ranking + (1 - p.mix) * quantised).mean())


@pytest.mark.parametrize("variant", [name for name in Mgsh.variants if name != "no-meta"])
@pytest.mark.parametrize("update", ["warm-up", "main"])
def test_items_left_out_equal_a_smaller_batch(variant: str, update: str) -> None:
    """Without dropout, which draws by place."""
    this, batch = method(variant, weight_dropout=0.0), items()
    valid = torch.arange(N) != 5
    left = valid if update == "warm-up" else KEEP & valid
    out, gradient = step(this, update, replace(batch, valid=valid), KEEP)
    expected, expected_gradient = step(this, update, part(batch, left), KEEP)
    torch.testing.assert_close(out.loss, expected.loss)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(out.sample_loss[left], expected.sample_loss)
    torch.testing.assert_close(out.state, expected.state)


def test_weights_are_fitted_on_the_kept_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kept item is compared with a kept one, and the mean runs over them alone."""
    this, batch = method(weight_dropout=0.0), items()
    orders: list[Tensor] = []

    def target(images: Tensor, texts: Tensor, order: Tensor) -> Tensor:
        orders.append(order)
        return alignment_target(images, texts, order)

    monkeypatch.setattr("nocobench.methods.mgsh.alignment_target", target)
    out, gradient = step(this, "fit weights", batch, KEEP)
    assert bool(KEEP[orders[0]][KEEP].all())
    ranks = torch.cumsum(KEEP.long(), 0) - 1
    order = ranks[orders[0][KEEP]]
    monkeypatch.setattr(Mgsh, "_shuffled", lambda *_: order)
    expected, expected_gradient = step(this, "fit weights", part(batch, KEEP), KEEP)
    torch.testing.assert_close(out.loss, expected.loss)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("variant", list(Mgsh.variants))
def test_nobody_kept_gives_no_loss_and_no_gradient(variant: str) -> None:
    this = method(variant)
    main = [update for update in this.passes(EPOCHS - 1)[0].updates if update.name in ("main", "fit weights")]  # type: ignore[union-attr]
    for update in main:
        if update.name == "fit weights" and this.params.meta == "matched":
            continue  # learns from verified pairs
        out, gradient = step(this, update.name, items(), torch.zeros(N))
        assert [float(value.detach()) for value in out.loss.values()] == [0] * len(out.loss)
        assert all(bool((value == 0).all()) for value in gradient.values())


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_fill_up_meta_pairs_do_not_count(variant: str) -> None:
    this, meta = method(variant, weight_dropout=0.0), items(N_META, 7)
    valid = torch.arange(N_META) < 5
    if variant == "released":
        out, gradient = step(this, "pull pairs", items(), meta=replace(meta, valid=valid))
        expected, expected_gradient = step(this, "pull pairs", items(), meta=part(meta, valid))
        torch.testing.assert_close((out.loss, gradient), (expected.loss, expected_gradient))
        return
    junk = replace(meta, images=torch.where(valid[:, None], meta.images, 9.0), valid=valid)
    for one, other in zip(
        step(this, "fit weights", items(), meta=replace(meta, valid=valid)),
        step(this, "fit weights", items(), meta=junk),
        strict=True,
    ):
        torch.testing.assert_close(getattr(one, "loss", one), getattr(other, "loss", other))


def test_weight_network_of_the_paper_looks_one_step_ahead() -> None:
    """P8: codes of the meta pairs under Theta - alpha grad mean L, against autograd."""
    this = method("paper", weight_dropout=0.0)
    nets, before, batch, meta = networks(this), state(this, KEEP), items(), items(N_META, 7)
    net = nets["net"]
    images, texts = net.images(batch.images), net.texts(batch.texts)
    aligned = nets["weight"].logits(images * texts).softmax(1)[:, 0].detach()
    margin = 0.5 / (1 + (1 / (1 - aligned) - 1) ** -0.5)
    loss = mean_over(this.per_item(images, texts, batch, before["centers"], margin, KEEP), KEEP)
    gradients = torch.autograd.grad(loss, list(net.params.values()))
    ahead = net.at({key: value - 0.1 * g for (key, value), g in zip(net.params.items(), gradients, strict=True)})
    a, b = ahead.images(meta.images), ahead.texts(meta.texts)
    order = this._shuffled(before, None, N_META)
    matched = nets["weight"].logits(a * b).log_softmax(1)[:, 0]
    mismatched = nets["weight"].logits(a * b[order]).log_softmax(1)[:, 1]
    found = this.loss(nets, {"all": batch, "meta": meta}, before, "fit weights").loss
    assert isinstance(found, dict)
    torch.testing.assert_close(found["weight"], -(matched + mismatched).mean() / 2)


@pytest.mark.parametrize("variant", [name for name in Mgsh.variants if name != "no-meta"])
def test_main_step_weighs_by_alignment(variant: str) -> None:
    this, batch = method(variant, weight_dropout=0.0), items()
    out, _ = step(this, "main", batch, KEEP)
    nets = networks(this)
    with torch.no_grad():
        logits = nets["weight"].logits(nets["net"].images(batch.images) * nets["net"].texts(batch.texts))
    aligned = logits.softmax(1)[:, 0] if variant.startswith("paper") else logits[:, 0].sigmoid()
    importance = 1 - aligned if variant.startswith("paper") or variant == "weight-hard" else aligned
    torch.testing.assert_close(out.weight, KEEP * importance)
    expected = (KEEP * importance * out.sample_loss).sum() / ((KEEP * importance).sum() + 1e-8)
    torch.testing.assert_close(out.loss["hashing"], expected)
    margin = adaptive_margin(aligned, 0.5, 0.5) if this.params.adaptive_margin else 0.5
    images, texts = nets["net"].images(batch.images), nets["net"].texts(batch.texts)
    losses = this.per_item(images, texts, batch, state(this)["centers"], margin, KEEP)
    torch.testing.assert_close(out.sample_loss, losses)


def test_without_meta_every_kept_item_counts_the_same() -> None:
    out, _ = step(method("no-meta"), "main", items(), KEEP)
    assert out.weight.tolist() == KEEP.double().tolist()
    torch.testing.assert_close(out.loss["hashing"], out.sample_loss[KEEP].mean())


@pytest.mark.parametrize("variant", list(Mgsh.variants))
def test_warm_up_is_the_plain_mean(variant: str) -> None:
    out, _ = step(method(variant), "warm-up", items(), torch.zeros(N))
    assert out.weight is None
    torch.testing.assert_close(out.loss["hashing"], out.sample_loss.mean())


def test_only_trained_class_codes_get_a_gradient() -> None:
    """Section 7 item 2: the released matrix never moves; the repaired loss moves nothing else."""
    for variant, reached in (("released", False), ("class-codes-trained", True)):
        this = method(variant)
        assert all(("class_codes" in update.train) is reached for e in (0, 9) for update in mains(this, e))
        nets = networks(this)
        out = this.loss(nets, {"all": items()}, state(this), "main")
        assert isinstance(out.loss, dict)
        assert ("class_codes" in out.loss) is reached
        if reached:
            params = [*nets["class_codes"].params.values(), *nets["net"].params.values()]
            first, *others = torch.autograd.grad(out.loss["class_codes"], params, allow_unused=True)
            assert bool(first.any())
            assert others == [None] * len(others)


def mains(this: Mgsh, epoch: int) -> list[Any]:
    (walk,) = this.passes(epoch)
    return [update for update in walk.updates if "net" in update.train and update.name != "pull pairs"]  # type: ignore[union-attr]


def test_updates_of_an_epoch() -> None:
    def names(variant: str, epoch: int) -> list[str]:
        (walk,) = method(variant).passes(epoch)
        return [update.name for update in walk.updates]  # type: ignore[union-attr]

    assert names("released", 4) == names("paper", 4) == ["warm-up"]
    assert names("released", 5) == ["pull pairs", "fit weights", "main"]
    assert names("paper", 5) == ["fit weights", "main"]
    assert names("no-meta", 5) == ["main"]
    (walk,) = method().passes(5)
    assert walk.draws == {"all": N, "meta": N_META}, "no more verified pairs than there are"  # type: ignore[union-attr]
    assert [method(epochs=epochs).warmup for epochs in (1, 3, 100)] == [0, 2, 5]


def test_weight_network_is_not_decayed() -> None:
    rules = method().optimizers()
    assert (rules["weight"].decay, rules["net"].decay, rules["class_codes"].decay) == (0.0, 0.1, 0.1)
    assert Mgsh.recipe is not None
    rule = Mgsh.recipe.optimizer
    assert (Mgsh.recipe.epochs, Mgsh.recipe.batch_size) == (100, 128)
    assert (rule.rule, rule.learning_rate, rule.decay, rule.decay_on) == ("adam", 1e-5, 1e-5, "all")


def test_dropout_acts_where_the_release_has_it() -> None:
    """Released: weights are drawn with dropout, so that another step gives others; paper: only the fit drops (item 15)."""
    for variant, differ in (("released", True), ("paper", False)):
        this, nets, before = method(variant), networks(method(variant)), state(method(variant))
        later = before | {"step": before["step"] + 1}
        first, again, second = (this.loss(nets, {"all": items()}, at, "main").weight for at in (before, before, later))
        assert first is not None
        assert again is not None
        assert second is not None
        assert torch.equal(first, again)
        assert torch.equal(first, second) is not differ
        fits = [
            this.loss(nets, {"all": items(), "meta": items(N_META, 7)}, before, "fit weights").loss["weight"]  # type: ignore[index]
            for this in (this, method(variant, weight_dropout=0.0))
        ]
        assert not torch.equal(*fits)


def test_a_fifth_of_the_units_is_dropped() -> None:
    net, noise = WeightNet(4), torch.rand(20000, 96, generator=torch.Generator().manual_seed(0))
    kept = net._dropped(torch.ones(20000, 96), noise)
    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert float((kept == 0).float().mean()) == pytest.approx(0.2, abs=0.002)
    assert float(kept.mean()) == pytest.approx(1, abs=0.005)


def test_step_counter_moves_with_the_main_step() -> None:
    this = method()
    assert int(step(this, "main", items())[0].state["step"]) == 1
    assert step(this, "fit weights", items())[0].state == {}


@pytest.mark.parametrize(("aligned", "margin"), [(1.0, 0.5), (0.5, 0.25), (0.8, 0.5 / 1.5), (0.0, 0.0)])
def test_margin_by_hand(aligned: float, margin: float) -> None:
    """0.5 / (1 + sqrt(1/a - 1)); hard pairs have small margins (P4)."""
    found = float(adaptive_margin(torch.tensor(aligned, dtype=torch.float64), 0.5, 0.5))
    assert found == pytest.approx(margin, abs=2e-4)


@given(st.floats(0.01, 0.99), st.floats(0.1, 2.0))
def test_margin_of_the_paper_is_the_released_one_of_the_other_polarity(w: float, tau: float) -> None:
    paper = 0.5 / (1 + (1 / w - 1) ** -tau)
    assert float(adaptive_margin(torch.tensor(1 - w, dtype=torch.float64), 0.5, tau)) == pytest.approx(paper, rel=1e-5)


def test_alignment_target_by_hand() -> None:
    """One-bits: image (1,1,0), own text (1,1,1) shares 2, shuffled text (0,0,1) shares 0: sigmoid(0.5 * 2)."""
    images = torch.tensor([[0.3, 0.2, -0.5], [0.1, -0.1, -0.1]])
    texts = torch.tensor([[0.4, 0.9, 0.2], [-0.4, -0.2, 0.9]])
    found = alignment_target(images, texts, torch.tensor([1, 0]))
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(0.5))])
    assert alignment_target(images, texts, torch.tensor([0, 1])).tolist() == [0.5, 0.5], "fixed points"


@settings(max_examples=50)
@given(st.permutations(range(9)), st.lists(st.booleans(), min_size=9, max_size=9))
def test_shuffles_stay_within_the_kept_items(order: list[int], kept: list[bool]) -> None:
    mask = torch.tensor(kept)
    found = shuffled_within(torch.tensor(order), mask)
    assert sorted(found.tolist()) == list(range(9))
    assert torch.equal(mask[found], mask)
    in_order = [place for place in order if mask[place]]
    assert found[mask].tolist() == in_order


@settings(max_examples=50)
@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 12))
def test_share_of_kept_items(n: int, rate: float, epoch: int) -> None:
    scores = torch.from_numpy(np.random.Generator(np.random.PCG64(n)).random(n))
    kept = small_loss_mask(scores, rate, epoch, EPOCHS)
    assert int(kept.sum()) == int((1 - rate * min(1, (epoch + 1) / EPOCHS)) * n)
    if bool(kept.any()) and not bool(kept.all()):
        assert float(scores[kept].max()) < float(scores[~kept].min())


def partition(this: Mgsh, scores: Tensor, epoch: int, rate: float = 0.4) -> Any:
    return this.partition({}, view(len(scores)), {"score": scores}, state(this, torch.ones(N), rate), epoch)


def test_selection_grows_to_the_known_rate() -> None:
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    shares = [partition(method(), scores, epoch).facts["kept_share"] for epoch in (5, 7, 9)]
    assert shares == pytest.approx([0.76, 0.68, 0.6], abs=0.002)
    found = partition(method(), scores, 9)
    assert found.facts["known_rate"] == 0.4
    assert float(found.state["kept"].sum()) == 600, "in float32 the rate would leave 599"
    probability = found.clean_probability["net"]
    torch.testing.assert_close(probability, 1 - normalised(scores))
    assert 0 <= float(probability.min()) <= float(probability.max()) <= 1
    assert partition(method(), scores, 9, rate=0.0).facts["kept_share"] == 1
    assert partition(method(), scores, 4).state == {}, "warm-up"


def test_scores() -> None:
    """Distance to the class matrix, or each item's own loss; both see labels of either modality."""
    batch = items()
    this, nets = method(), networks(method())
    with torch.no_grad():
        u, v, w = nets["net"].images(batch.images), nets["net"].texts(batch.texts), nets["class_codes"].codes()
        found = this.signals(nets, batch, state(this), 9)["score"]
    for i in range(N):
        terms = [
            sum((1 - float(h[i] @ w[k])) ** 2 for h, y in zip((u, v), given_labels(batch), strict=True) if y[i, k])
            for k in range(K)
        ]
        assert float(found[i]) == pytest.approx(max(terms))
    this, nets = method("selection-train-loss"), networks(method("selection-train-loss"))
    with torch.no_grad():
        own = this.signals(nets, batch, state(this), 9)["score"]
        shared = this.per_item(u, v, batch, state(this)["centers"], 0.5)
    assert float(own.mean()) == pytest.approx(float(shared.mean())), "the same loss on average"
    assert float((own - shared).abs().max()) > 1e-3


def test_centres_by_hand() -> None:
    """One class of two items, weights 1 and 3, image codes (1,0), (0,1), text codes the same: mean (1,3)/4; the other class stays."""
    codes_of = torch.eye(2, dtype=torch.float64)
    members = torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    before = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    moved = moved_centers(codes_of, codes_of, members, members, before, 0.1, floor=1e-12)
    expected = np.array([0.9 + 0.1 * 0.25, 0.1 * 0.75])
    np.testing.assert_allclose(moved[0], expected / np.linalg.norm(expected), rtol=1e-9)
    np.testing.assert_allclose(moved[1], [0.6, 0.8], rtol=1e-12)
    unit = moved_centers(codes_of, codes_of, members, members, before, 0.1, unit_means=True)
    expected = np.array([0.9, 0]) + 0.1 * np.array([1, 3]) / math.sqrt(10)
    np.testing.assert_allclose(unit[0], expected / np.linalg.norm(expected), rtol=1e-6)


@pytest.mark.parametrize("variant", list(Mgsh.variants))
def test_centres_move_only_where_asked(variant: str) -> None:
    this = method(variant)
    moves = variant.startswith("paper") or variant in ("repaired", "update-centers")
    for update in ("warm-up", "main"):
        out, _ = step(this, update, items(), KEEP)
        assert ("centers" in out.state) is moves
        if moves:
            before, after = state(this)["centers"], out.state["centers"]
            assert bool((after[:-1] != before[:-1]).any(1).all())
            torch.testing.assert_close(after[-1], before[-1], msg="nobody has the last class")
            torch.testing.assert_close(after.norm(dim=1), torch.ones(K, dtype=torch.float64))


@pytest.mark.parametrize("variant", ["paper", "update-centers"])
def test_centres_are_means_of_the_weighted_codes(variant: str) -> None:
    """Both modalities with their own labels; the paper gives each mean unit norm before it is averaged in (P5)."""
    this, batch = method(variant, weight_dropout=0.0), items()
    out, _ = step(this, "main", batch, KEEP)
    net, centers = networks(this)["net"], state(this)["centers"]
    outputs = net.images(batch.images).detach(), net.texts(batch.texts).detach()
    used = outputs if variant == "paper" else [x.tanh() for x in outputs]
    for k in range(K - 1):
        members = [y[:, k] * out.weight for y in given_labels(batch)]
        mean = sum(m @ h for m, h in zip(members, used, strict=True)) / sum(float(m.sum()) for m in members)
        mean = mean / mean.norm() if variant == "paper" else mean
        moved = 0.95 * centers[k] + 0.05 * mean
        torch.testing.assert_close(out.state["centers"][k], moved / moved.norm(), rtol=1e-5, atol=1e-6)


def test_codes_of_the_paper_are_not_normalised() -> None:
    batch = items()
    for variant, unit in (("released", True), ("paper", False)):
        lengths = networks(method(variant))["net"].images(batch.images).norm(dim=1)
        assert torch.allclose(lengths, torch.ones_like(lengths)) is unit


def test_grants() -> None:
    needs = {name: method(name).needs_now() for name in Mgsh.variants}
    assert needs.pop("no-meta") == {"noise-rate"}
    assert set(needs.values()) == {frozenset({"noise-rate", "clean-meta-set"})}
    with pytest.raises(MethodError, match="does not tell; grant noise_rate"):
        state(method(), rate=None)
    trial = Trial("mgsh", "released", small_label_protocol(grants=Grants(noise_rate=True)))
    assert {record.status for record in trial.run(trial.cells[:1]).values()} == {"not_applicable"}


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_mapped_over_runs_equals_run_by_run(variant: str) -> None:
    this, batch, meta = method(variant), items(), items(N_META, 7)
    nets, before = networks(this), state(this)
    masks = torch.stack([KEEP, ~KEEP]).double()
    keys = torch.tensor([3, 4])

    def one(kept: Tensor, key: Tensor) -> dict[str, Tensor]:
        at, found = before | {"kept": kept, "key": key}, {}
        for update in this.passes(EPOCHS - 1)[0].updates:  # type: ignore[union-attr]
            out = this.loss(nets, {"all": batch, "meta": meta}, at, update.name)
            assert isinstance(out.loss, dict)
            found |= {f"{update.name} {name}": value for name, value in out.loss.items()} | dict(out.state)
            found |= {} if out.weight is None else {"weights": out.weight}
        return found

    mapped = torch.func.vmap(one)(masks, keys)
    for run in range(2):
        torch.testing.assert_close({name: value[run] for name, value in mapped.items()}, one(masks[run], keys[run]))


def test_quantisation_of_the_paper_makes_all_codes_equal() -> None:
    """Its weight 0.5 leaves a MAP near chance (19.6) even on clean data; a tenth of it does not."""
    scores = {}
    for variant in ("paper", "paper-weak-quantisation"):
        trial = Trial("mgsh", variant, small_label_protocol())
        (record,) = trial.run(trial.cells[:1]).values()
        assert record.outcome is not None
        scores[variant] = record.outcome.selected.full.headline
    assert scores["paper"] < 30 < 45 < scores["paper-weak-quantisation"]


@pytest.mark.parametrize("variant", ["paper", "repaired", "weight-hard", "no-meta"])
def test_variants_run(variant: str) -> None:
    trial = Trial("mgsh", variant, small_label_protocol())
    (record,) = trial.run(trial.cells[-1:]).values()
    assert record.status == "done", record
    assert record.outcome is not None
    assert record.outcome.facts == pytest.approx({"kept_share": 0.5, "known_rate": 0.5}, abs=0.01)
    assert {summary.signal for summary in record.outcome.signals} == {"loss", "weight", "clean_probability"}

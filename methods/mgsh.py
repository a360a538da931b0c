"""``mgsh``: Meta-Guided Sample Reweighting for hashing with noisy labels (specs/mgsh.md), the code and the equations apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
from . import draws
from .contract import (
    Batch,
    BoundNetwork,
    Budget,
    Difference,
    GradientMethod,
    Network,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    Update,
)
from .hashing_towers import hashing_towers
from .label_losses import log_label_probability, robust_shape
from .nrch import log_sum_of_negatives, normalised, prototype_residual, quantisation, share_a_label, shifted_negatives
from .optim import Optimizer, Schedule
from .registry import register

SMALL = 1e-8


class WeightNet(Network):
    """Weight of an item from the product of its codes (MSWN, mgsh.md section 5): 64, 32 hidden units with LayerNorm and dropout.

    Args:
        bits: of the codes.
        outputs: 1 = a sigmoid (released), 2 = logits of (easy, hard) (paper).
    """

    def __init__(self, bits: int, outputs: int = 1, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.first_norm = nn.Linear(bits, 64), nn.LayerNorm(64)
        self.second, self.second_norm = nn.Linear(64, 32), nn.LayerNorm(32)
        self.last = nn.Linear(32, outputs)
        for layer in (self.first, self.second, self.last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def logits(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """``[B, bits] -> [B, outputs]``; ``noise [B, 96]`` in [0, 1) decides what dropout keeps, None = no dropout."""
        hidden = self._dropped(self.first_norm(self.first(x).relu()), None if noise is None else noise[:, :64])
        hidden = self._dropped(
            self.second_norm(self.second(hidden).relu()), None if noise is None else noise[:, 64:]
        )
        return self.last(hidden)

    def _dropped(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            return x
        return torch.where(noise >= self.dropout, x / (1 - self.dropout), 0.0)


@register
class Mgsh(GradientMethod):
    """Small-loss selection, sample weights from a small network, margins that follow the weights.

    ``released`` (3.2): per item ``l_i = lambda l^r_i + (1-lambda)(l^c + l^q_i)``, NRCH's log-sum-exp ranking, a centre loss that is one number
    per batch, quantisation. The weight network is regressed on how many one-bits the codes of a pair share more than those of a shuffled pair;
    a meta batch only adds a step that pulls pairs together. Items are selected by a random matrix that nothing trains.

    ``paper`` (3.1): items of small training loss are kept (P1); the weight is the probability that a network trained on matched and mismatched
    meta pairs calls the pair mismatched (P2, P3); it sets the margin of a hinge (P4) and the class centres (P5)::

        g_i = gamma / (1 + (1/w_i - 1)^(-tau)),   L_w,i = [g_i + d_ii - d_ik]_+   averaged over k that share no label
        L_i = L_w,i + l1 L_c,i + l2 L_q,i,        L = sum_i w_i L_i               (P7, P8)

    Both know the noise rate. Switches of the repaired code are variants.
    """

    @dataclass(frozen=True)
    class Params:
        equations: str = "released"  # or "paper"; mgsh.md 3.2, 3.1
        gamma: float = 0.5  # margin; MGSH.py, paper Table 3
        tau: float = 0.5  # temperature of the log-sum-exp and exponent of the margin; MGSH.py
        mix: float = 0.7  # lambda of the released loss; MGSH.py (first commit 0.5)
        r: float = 0.5  # shape of the centre loss; MGSH.py; paper 0.7
        center_weight: float = 0.5  # l1; paper Table 3
        quantisation_weight: float = 0.5  # l2; paper Table 3
        shift: float = 1.0  # of negatives within the margin; MGSH.py Robust_Loss
        warmup_epochs: int = 5  # plain training with the given labels; MGSH.py
        meta_batch: int = 64  # verified pairs per step; MGSH.py
        center_rate: float = 0.05  # moving average of the centres; dead code of the release
        score: str = "class-codes"  # or "train-loss": what small means in the selection; mgsh.md section 7 item 2
        trains_class_codes: bool = False  # as NRCH does; mgsh.md section 7 item 2
        adaptive_margin: bool = False  # pass the margins that the code computes to the loss; mgsh.md section 7 item 3
        moves_centers: bool = False  # call the centre update; mgsh.md section 7 item 4
        meta: bool = True  # False: no meta batch and no weights
        weight_dropout: float = 0.2  # of the weight network, active when weights are drawn; mgsh.md section 7 item 15

    label = "MGSH"
    reference = (
        "Z. Tan et al., Meta-Guided Sample Reweighting for Robust Cross-Modal Hashing Retrieval with Noisy Labels, "
        "AAAI 2026; github.com/supertanziang/MGSH"
    )
    spec_page = "mgsh.md"
    task = "label-hashing"
    needs = frozenset({"noise-rate", "clean-meta-set"})
    flags = frozenset({"clean-meta-set"})
    variants = {
        "released": Params(),
        "paper": Params(equations="paper", r=0.7, score="train-loss"),
        "class-codes-trained": Params(trains_class_codes=True),
        "select-by-loss": Params(score="train-loss"),
        "adaptive-margin": Params(adaptive_margin=True),
        "centers-moved": Params(moves_centers=True),
        "no-meta": Params(meta=False),
        "repaired": Params(trains_class_codes=True, adaptive_margin=True, moves_centers=True),
    }
    differences = (
        Difference("noise on MIRFlickr", "applied", "never applied with the released scripts; ours applies it", "mgsh.md section 7 item 1"),
        Difference("selection", "small training loss", "distance to a random matrix that is never trained", "mgsh.md section 7 item 2"),
        Difference("margin", "adaptive", "fixed; the adaptive one is computed and dropped", "mgsh.md section 7 item 3"),
        Difference("class centres", "weighted means, moving", "random signs, fixed", "mgsh.md section 7 item 4"),
        Difference("meta step", "virtual step, matched against mismatched", "a real step; regression on shared one-bits", "mgsh.md section 7 item 5"),
        Difference("weight", "high = hard", "high = well aligned", "mgsh.md section 7 item 6"),
        Difference("ranking", "hinge on triplets", "log-sum-exp over rows, twice", "mgsh.md section 7 item 10"),
        Difference("epoch", "validation", "best on the test queries; ours: validation", "mgsh.md section 7 item 12"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer("adam", 1e-5, (0.9, 0.999), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("constant")),
    )

    def needs_now(self) -> frozenset[str]:
        return self.needs if self.params.meta else frozenset({"noise-rate"})

    @property
    def paper(self) -> bool:
        """Whether the equations of the paper are followed."""
        return self.params.equations == "paper"

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        # P6 quantises codes to 1, which unit rows cannot reach.
        found: dict[str, Callable[[], nn.Module]] = {"net": hashing_towers(self.spec, unit=not self.paper, bias=True)}
        if self.params.meta:
            outputs = 2 if self.paper else 1
            found["weight"] = lambda: WeightNet(self.spec.bits, outputs, self.params.weight_dropout)
        if self.params.score == "class-codes":
            found["class_codes"] = lambda: ClassCodes(self.spec.n_classes, self.spec.bits)
        return found

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Kept items, centres (random signs, 3.2), the known rate, and the key of draws inside the loss."""
        one = train.images.new_ones(())
        signs = run.generator("class centres").integers(0, 2, (self.spec.n_classes, self.spec.bits)) * 2.0 - 1
        centers = torch.as_tensor(signs / math.sqrt(self.spec.bits)).to(one)
        return {
            "kept": train.images.new_ones(train.n_pairs),
            "centers": centers,
            "rate": one * (run.noise_rate or 0.0),
            "key": draws.new_key(run.generator("dropout and shuffles")).to(one.device),
            "step": torch.zeros((), dtype=torch.int64, device=one.device),
        }

    @property
    def _first(self) -> int:
        return self.warmup_epochs(self.params.warmup_epochs)

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        drawn = {"all": self.spec.batch_size}
        main = ("net", "class_codes") if self.params.trains_class_codes else ("net",)
        if epoch < self._first:
            return [Pass(drawn, (Update("warm-up", main),), last_batch="keep")]
        if not self.params.meta:
            return [Pass(drawn, (Update("main", main),), last_batch="keep")]
        drawn["meta"] = min(self.params.meta_batch, self.spec.n_meta_images)
        weight = Update("weight", ("weight",))
        updates = (weight, Update("main", main)) if self.paper else (Update("meta", ("net",)), weight, Update("main", main))
        return [Pass(drawn, updates, last_batch="keep")]

    def observes(self, epoch: int) -> bool:
        return epoch >= self._first

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """The score by which small-loss items are kept, of every item."""
        assert batch.labels is not None
        images, texts = nets["net"].images(batch.images), nets["net"].texts(batch.texts)
        if self.params.score == "class-codes":
            return {"score": prototype_residual(images, texts, nets["class_codes"].codes(), batch.labels)}
        weight = self._weight(nets, images, texts, None)
        return {"score": self.per_item(images, texts, batch, state, weight, None)}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Keep the items of smallest score; the share that is dropped grows to the known rate (P1; 3.2 selection)."""
        if not self.observes(epoch):
            return Partition()
        kept = small_loss_mask(signals["score"], float(state["rate"]), epoch, self.spec.epochs)
        facts = {"kept_share": float(kept.double().mean()), "known_rate": float(state["rate"])}
        return Partition(state={"kept": kept.to(state["kept"].dtype)}, facts=facts)

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        if update == "meta":
            return StepOutput({"meta": self._pull_pairs(nets, batch["meta"], state)})
        if update == "weight":
            return self._fit_weights(nets, batch, state)
        return self._main(nets, batch["all"], state, plain=update == "warm-up")

    def _main(self, nets: Networks, items: Batch, state: State, plain: bool) -> StepOutput:
        images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
        ones = images.new_ones(len(images))
        kept = ones if plain else state["kept"][items.index]
        if items.valid is not None:
            kept = torch.where(items.valid, kept, 0.0)
        weight = ones
        if self.params.meta and not plain:
            noise = None if self.paper else self._noise(state, 1, len(images))
            weight = self._weight(nets, images, texts, noise)
        losses = self.per_item(images, texts, items, state, weight, kept > 0)
        counted = weight * kept
        share = counted / (counted.sum() + SMALL)
        parts = {"hashing": (share * losses).sum()}
        if self.params.trains_class_codes:
            parts["class_codes"] = self._class_code_loss(nets["class_codes"], images, texts, items, kept)
        changes = {}
        if not plain and (self.paper or self.params.moves_centers):
            changes["centers"] = self._moved_centers(images, texts, items, state, weight, kept)
        logged = counted if self.params.meta or not plain else None
        return StepOutput(parts, logged, losses, changes)

    def _weight(self, nets: Networks, images: Tensor, texts: Tensor, noise: Tensor | None) -> Tensor:
        """``[B]`` in [0, 1], without gradient: released "well aligned" (3.2), paper "hard" (P3)."""
        if not self.params.meta:
            return images.new_ones(len(images))
        here = {key: value.detach() for key, value in nets["weight"].params.items()}
        logits = nets["weight"].at(here).logits((images * texts).detach(), noise)
        return logits.softmax(1)[:, 1] if self.paper else logits[:, 0].sigmoid()

    def per_item(
        self, images: Tensor, texts: Tensor, items: Batch, state: State, weight: Tensor, kept: Tensor | None
    ) -> Tensor:
        """Training loss of every item, ``[B]``; items that are not ``kept`` are no negatives."""
        assert items.labels is not None
        assert items.text_labels is not None
        shares = share_a_label(items.labels, items.text_labels)
        if self.paper:
            return self._paper_loss(images, texts, items, state["centers"], shares, weight, kept)
        margin: Tensor | float = self.params.gamma
        if self.params.adaptive_margin:
            margin = adaptive_margin(weight, self.params.gamma, self.params.tau)
        u, v = images.tanh(), texts.tanh()
        ranking = released_ranking(u, v, shares, margin, self.params.tau, self.params.shift, kept)
        centre = _mean_of(self._center_loss(u, v, items, state["centers"]), kept)
        return self.params.mix * ranking + (1 - self.params.mix) * (centre + quantisation(u, v))

    def _center_loss(self, u: Tensor, v: Tensor, items: Batch, centers: Tensor) -> Tensor:
        assert items.labels is not None
        assert items.text_labels is not None
        sides = ((u, items.labels), (v, items.text_labels))
        first, second = (robust_shape(log_label_probability(h, centers, y), self.params.r) for h, y in sides)
        return first + second

    def _paper_loss(
        self, f1: Tensor, f2: Tensor, items: Batch, centers: Tensor, shares: Tensor, weight: Tensor, kept: Tensor | None
    ) -> Tensor:
        """``L_train`` of P4 to P7."""
        margin = adaptive_margin(weight, self.params.gamma, -self.params.tau)
        ranking = hinge_on_strangers(f1, f2, shares, margin, kept)
        quantised = (f1.abs() - 1).square().mean(1) + (f2.abs() - 1).square().mean(1)
        centre = self._center_loss(f1, f2, items, centers)
        return ranking + self.params.center_weight * centre + self.params.quantisation_weight * quantised

    def _pull_pairs(self, nets: Networks, meta: Batch, state: State) -> Tensor:
        """The released step on verified pairs, with all labels 1: it pulls pairs together (3.2, step 1)."""
        ones = meta.images.new_ones(len(meta.images), self.spec.n_classes)
        pairs = replace(meta, labels=ones, text_labels=ones)
        images, texts = nets["net"].images(meta.images), nets["net"].texts(meta.texts)
        plain = replace(self.params, adaptive_margin=False)
        losses = Mgsh(plain, self.spec).per_item(images, texts, pairs, state, ones[:, 0], meta.valid)
        return meta.mean(losses)

    def _fit_weights(self, nets: Networks, batch: Mapping[str, Batch], state: State) -> StepOutput:
        step = {"step": state["step"] + 1}
        if self.paper:
            return StepOutput({"weight": self._matched_against_mismatched(nets, batch["meta"], state)}, state=step)
        items = batch["all"]
        images, texts = (x.detach() for x in (nets["net"].images(items.images), nets["net"].texts(items.texts)))
        order = draws.permutation(state["key"], 4 * state["step"], len(images))
        target = alignment(images, texts, order)
        prediction = nets["weight"].logits(images * texts, self._noise(state, 2, len(images)))[:, 0]
        losses = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        chosen = state["kept"][items.index]
        if items.valid is not None:
            chosen = torch.where(items.valid, chosen, 0.0)
        return StepOutput({"weight": (chosen * losses).sum() / chosen.sum().clamp(min=1)}, state=step)

    def _matched_against_mismatched(self, nets: Networks, meta: Batch, state: State) -> Tensor:
        """Cross-entropy of P2; codes are those of the current heads, because the virtual step carries no gradient to the weights (P8)."""
        images, texts = (x.detach() for x in (nets["net"].images(meta.images), nets["net"].texts(meta.texts)))
        order = draws.permutation(state["key"], 4 * state["step"], len(images))
        matched = nets["weight"].logits(images * texts).log_softmax(1)[:, 0]
        mismatched = nets["weight"].logits(images * texts[order]).log_softmax(1)[:, 1]
        return -(meta.mean(matched) + meta.mean(mismatched)) / 2

    def _noise(self, state: State, purpose: int, n: int) -> Tensor | None:
        if not self.params.weight_dropout:
            return None
        return draws.uniform(state["key"], 4 * state["step"] + purpose, (n, 96))

    def _class_code_loss(
        self, codes: BoundNetwork, images: Tensor, texts: Tensor, items: Batch, kept: Tensor
    ) -> Tensor:
        """NRCH's prototype loss, which the release computes and drops (section 7 item 2)."""
        assert items.labels is not None
        wanted = 2 * items.labels - 1
        residuals = sum((wanted - h.detach() @ codes.codes().mT).square().mean(1) for h in (images, texts))
        return (kept * residuals).sum() / kept.sum().clamp(min=1)

    def _moved_centers(
        self, images: Tensor, texts: Tensor, items: Batch, state: State, weight: Tensor, kept: Tensor
    ) -> Tensor:
        assert items.labels is not None
        u, v = (images.detach(), texts.detach()) if self.paper else (images.detach().tanh(), texts.detach().tanh())
        return moved_centers(u, v, items.labels, weight * kept, state["centers"], self.params.center_rate)


class ClassCodes(Network):
    """An orthogonal random matrix, one row per class, used as ``tanh(W)``; trained in the repaired variants only."""

    def __init__(self, n_classes: int, bits: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(nn.init.orthogonal_(torch.empty(n_classes, bits)))

    def codes(self) -> Tensor:
        """``[n_classes, bits]``."""
        return self.matrix.tanh()


def released_ranking(
    u: Tensor, v: Tensor, shares: Tensor, margin: Tensor | float, tau: float, shift: float, kept: Tensor | None = None
) -> Tensor:
    """``l^r_i`` of 3.2, ``[B]``: both sums run over the row, and the margin of the row also serves the second direction."""
    similarity = u @ v.mT
    own = similarity.diagonal()
    of_row = margin[:, None] if isinstance(margin, Tensor) else margin
    total: Tensor | float = 2 * margin
    for anchor in (own[:, None], own[None, :]):
        costs = shifted_negatives(similarity, anchor, of_row, shift)
        eye = torch.eye(len(costs), dtype=torch.bool, device=costs.device)
        costs = torch.where(eye, own[:, None], costs)
        total = total + log_sum_of_negatives(costs, shares, tau, kept) - own
    return total  # type: ignore[return-value]


def hinge_on_strangers(f1: Tensor, f2: Tensor, shares: Tensor, margin: Tensor, kept: Tensor | None = None) -> Tensor:
    """P4: ``[g_i + d_ii - d_ik]_+`` with ``d = 1 - cosine``, the mean over kept k that share no label and over both directions, ``[B]``."""
    similarity = F.normalize(f1, dim=1) @ F.normalize(f2, dim=1).mT
    own = similarity.diagonal()
    eye = torch.eye(len(own), dtype=torch.bool, device=own.device)
    strangers = ~(shares | eye)
    if kept is not None:
        strangers = strangers & kept[None, :] & kept[:, None]

    def one(scores: Tensor, allowed: Tensor) -> Tensor:
        hinges = (margin[:, None] + scores - own[:, None]).clamp(min=0)
        return torch.where(allowed, hinges, 0.0).sum(1) / allowed.sum(1).clamp(min=1)

    return (one(similarity, strangers) + one(similarity.mT, strangers.mT)) / 2


def adaptive_margin(weight: Tensor, gamma: float, exponent: float) -> Tensor:
    """``gamma / (1 + (1/w - 1)^exponent)``, ``[B]``: exponent tau where w means clean (3.2), -tau where it means hard (P4)."""
    ratio = (1 / (weight + SMALL) - 1).clamp(min=SMALL)
    return gamma / (1 + ratio**exponent)


def alignment(images: Tensor, texts: Tensor, order: Tensor) -> Tensor:
    """Target of the released weight net (3.2, step 2): ``sigmoid(0.5 (a_i.b_i - a_i.b_order(i)))`` of 0/1 codes, ``[B]``."""
    a, b = (images > 0).to(images.dtype), (texts > 0).to(texts.dtype)
    return (0.5 * ((a * b).sum(1) - (a * b[order]).sum(1))).sigmoid()


def small_loss_mask(scores: Tensor, rate: float, epoch: int, ramp: int) -> Tensor:
    """The ``int((1 - forget) N)`` items of smallest score, ``forget = rate min(1, (epoch+1)/ramp)`` (3.2 selection), ``[N]`` bool."""
    forget = rate * min(1.0, (epoch + 1) / ramp)
    count = int((1 - forget) * len(scores))
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kept[normalised(scores).argsort(stable=True)[:count]] = True
    return kept


def moved_centers(
    u: Tensor,
    v: Tensor,
    labels: Tensor,
    weight: Tensor,
    centers: Tensor,
    rate: float,
    text_weight: Tensor | None = None,
    floor: float = 1e-6,
) -> Tensor:
    """Moving average of weighted class means over both modalities, unit rows ``[K, bits]``; a class without members stays (P5).

    ``text_weight [B]`` are weights of their own for the texts, None = those of the images; ``floor`` is added to the sum of weights.
    """
    of_images, of_texts = ((labels * w[:, None]).mT for w in (weight, weight if text_weight is None else text_weight))
    mass = of_images.sum(1, keepdim=True) + of_texts.sum(1, keepdim=True)
    means = (of_images @ u + of_texts @ v) / (mass + floor)
    return F.normalize((1 - rate) * centers + rate * means, dim=1)


def _mean_of(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.mean() if kept is None else torch.where(kept, values, 0.0).sum() / kept.sum().clamp(min=1)

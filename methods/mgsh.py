"""``mgsh``: Meta-Guided Sample Reweighting for hashing with noisy labels (specs/mgsh.md), the released code and the paper's equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad

from ..datasets.types import TrainView
from . import draws
from .contract import (
    Batch,
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
from .contract import (
    Params as Parameters,
)
from .hashing_towers import hashing_towers
from .label_losses import log_label_probability, robust_shape
from .nrch import (
    counted,
    given_labels,
    log_sum_of_negatives,
    mean_over,
    normalised,
    prototype_loss,
    prototype_residual,
    quantisation,
    share_a_label,
    shifted_negatives,
)
from .optim import Optimizer, Schedule, virtual_step
from .registry import MethodError, register

SMALL = 1e-8  # MGSH.py; keeps weights and their sums away from 0


class WeightNet(Network):
    """Alignment of an item from the product of its codes (MSWN, mgsh.md section 5): 64 and 32 hidden units, LayerNorm, dropout.

    Args:
        bits: of the codes.
        outputs: 1 = before a sigmoid (released), 2 = logits of (matched, mismatched) (paper).
        dropout: share of hidden units that is dropped.
    """

    widths = (64, 32)

    def __init__(self, bits: int, outputs: int = 1, dropout: float = 0.2) -> None:
        super().__init__()
        wide, narrow = self.widths
        self.dropout = dropout
        self.first, self.first_norm = nn.Linear(bits, wide), nn.LayerNorm(wide)
        self.second, self.second_norm = nn.Linear(wide, narrow), nn.LayerNorm(narrow)
        self.last = nn.Linear(narrow, outputs)
        for layer in (self.first, self.second, self.last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def logits(self, products: Tensor, noise: Tensor | None = None) -> Tensor:
        """``[B, bits] -> [B, outputs]``; ``noise [B, 96]`` in [0, 1) decides what dropout keeps, None = no dropout."""
        of_first, of_second = (None, None) if noise is None else noise.split(self.widths, dim=1)
        hidden = self._dropped(self.first_norm(self.first(products).relu()), of_first)
        return self.last(self._dropped(self.second_norm(self.second(hidden).relu()), of_second))

    def _dropped(self, hidden: Tensor, noise: Tensor | None) -> Tensor:
        return hidden if noise is None else torch.where(noise >= self.dropout, hidden / (1 - self.dropout), 0.0)


class ClassCodes(Network):
    """A random orthogonal matrix, one row per class, used as ``tanh(W)`` in the selection (mgsh.md 3.2); variants train it."""

    def __init__(self, n_classes: int, bits: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(nn.init.orthogonal_(torch.empty(n_classes, bits)))

    def codes(self) -> Tensor:
        """``[n_classes, bits]`` in (-1, 1)."""
        return self.matrix.tanh()


@register
class Mgsh(GradientMethod):
    """Small-loss items, weighted by a small network that looks at their codes.

    Items of large score are left out of their batches; the share left out grows to the known noise rate. A weight network then says of a
    pair how well its codes are aligned, ``a_i``; it never sees a label.

    ``released`` (3.2): ``l_i = lambda l^r_i + (1 - lambda) (l^c + l^q_i)`` with NRCH's log-sum-exp ranking, a centre loss that is one
    number per batch, and quantisation; ``w_i = a_i``, ``L = sum_i w_i l_i / sum_i w_i``. The score is the distance to a random matrix
    that nothing trains. Per iteration the heads first pull verified pairs together, then the weight network is regressed on how many
    one-bits the codes of a pair share beyond those of a shuffled pair.

    ``paper`` (3.1): the score is the training loss (P1); the weight network tells matched from mismatched verified pairs, with codes one
    virtual step ahead (P2, P8); ``w_i = 1 - a_i`` (P3) sets the margin of a hinge over items without a common label (P4) and the class
    centres (P5). Codes are tanh without unit norm, because P6 quantises them to 1::

        g_i = gamma / (1 + (1/w_i - 1)^(-tau)) = gamma / (1 + (1/a_i - 1)^tau),   L_w,i = mean_k [g_i + d_ii - d_ik]_+
        L_i = L_w,i + l1 L_c,i + l2 L_q,i,        L = sum_i w_i L_i / sum_i w_i   (P7, P8)

    With l2 = 0.5 of the paper the codes saturate before items move apart, and on our small sets all of them become equal; hence the
    variant ``paper-weak-quantisation``. Other variants switch on what the released code computes and drops. Logged are the weight (0 where
    left out), the loss, and as clean probability one minus the normalised score: the noise detector is the selection, not the weight
    (section 8).
    """

    @dataclass(frozen=True)
    class Params:
        equations: Literal["released", "paper"] = "released"  # of the per-item loss and the heads; mgsh.md 3.2, 3.1
        gamma: float = 0.5  # margin; MGSH.py, paper Table 3
        tau: float = 0.5  # temperature of the log-sum-exp and exponent of the margin; MGSH.py
        mix: float = 0.7  # lambda of the released loss; MGSH.py (first commit 0.5)
        r: float = 0.5  # shape of the centre loss; MGSH.py; paper 0.7
        center_weight: float = 0.5  # l1 of the paper; Table 3
        quantisation_weight: float = 0.5  # l2 of the paper; Table 3
        shift: float = 1.0  # of negatives beyond the margin; MGSH.py Robust_Loss
        warmup_epochs: int = 5  # mean loss of all items; MGSH.py, at 60 as at 100 epochs
        meta_batch: int = 64  # verified pairs per iteration; utils/tools.py
        center_rate: float = 0.05  # eta of the centres' moving average; dead code of MGSH.py
        score: Literal["class-codes", "train-loss"] = "class-codes"  # small values are kept; section 7 item 2
        train_class_codes: bool = False  # with NRCH's prototype loss, computed and dropped; section 7 item 2
        adaptive_margin: bool = False  # the margin that is computed and dropped; section 7 item 3
        update_centers: bool = False  # once per batch, else random signs for ever; section 7 item 4
        meta: Literal["regression", "matched", "none"] = "regression"  # what fits the weight network; section 7 item 5
        polarity: Literal["clean", "hard"] = "clean"  # weight = alignment or 1 - alignment; section 7 item 6
        weight_dropout: float = 0.2  # of the weight network; network.py
        noisy_weights: bool = True  # dropout also when weights are drawn; section 7 item 15

    label = "MGSH"
    reference = (
        "Z. Tan, W. An, E. Yang, Meta-Guided Sample Reweighting for Robust Cross-Modal Hashing Retrieval with Noisy Labels, "
        "AAAI 2026; github.com/supertanziang/MGSH"
    )
    spec_page = "mgsh.md"
    task = "label-hashing"
    needs = frozenset({"noise-rate", "clean-meta-set"})
    flags = frozenset({"clean-meta-set"})
    variants = {
        "released": Params(),
        "paper": Params(
            equations="paper", r=0.7, score="train-loss", adaptive_margin=True, update_centers=True, meta="matched",
            polarity="hard", noisy_weights=False,
        ),
        "paper-weak-quantisation": Params(
            equations="paper", r=0.7, score="train-loss", adaptive_margin=True, update_centers=True, meta="matched",
            polarity="hard", noisy_weights=False, quantisation_weight=0.05,
        ),
        "repaired": Params(train_class_codes=True, adaptive_margin=True, update_centers=True),
        "class-codes-trained": Params(train_class_codes=True),
        "selection-train-loss": Params(score="train-loss"),
        "adaptive-margin": Params(adaptive_margin=True),
        "update-centers": Params(update_centers=True),
        "weight-hard": Params(polarity="hard"),
        "no-meta": Params(meta="none"),
    }  # fmt: skip
    differences = (
        Difference("noise on MIRFlickr", "applied", "never applied with the released scripts; ours is", "mgsh.md section 7 item 1"),
        Difference("selection", "small training loss", "distance to a random matrix, never trained", "mgsh.md section 7 item 2"),
        Difference("margin", "adaptive", "fixed; the adaptive one is computed and dropped", "mgsh.md section 7 item 3"),
        Difference("class centres", "weighted means, moving", "random signs, fixed", "mgsh.md section 7 item 4"),
        Difference("meta step", "virtual; matched against mismatched", "real; regression on shared one-bits", "mgsh.md section 7 item 5"),
        Difference("weight", "high = hard", "high = well aligned", "mgsh.md section 7 item 6"),
        Difference("quantisation", "to 1", "to 1 / sqrt(bits), of unit rows", "mgsh.md section 7 item 8"),
        Difference("sum of the parts", "1, 0.5, 0.5; r 0.7", "0.7, 0.3, 0.3; r 0.5", "mgsh.md section 7 item 9"),
        Difference("ranking", "hinge on triplets", "log-sum-exp over rows, twice", "mgsh.md section 7 item 10"),
        Difference("centre loss", "of each item", "one number for the batch", "mgsh.md section 7 item 11"),
        Difference("epoch", "validation", "best on the test queries; ours: validation", "mgsh.md section 7 item 12"),
        Difference("weights", "not said", "drawn with dropout", "mgsh.md section 7 item 15"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer(
            "adam", 1e-5, (0.9, 0.999), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("constant")
        ),
    )

    def needs_now(self) -> frozenset[str]:
        return self.needs if self._weighs else frozenset({"noise-rate"})

    @property
    def warmup(self) -> int:
        """Epochs of the mean loss of all items; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs)

    @property
    def _paper(self) -> bool:
        return self.params.equations == "paper"

    @property
    def _weighs(self) -> bool:
        return self.params.meta != "none"

    @property
    def _has_class_codes(self) -> bool:
        return self.params.score == "class-codes" or self.params.train_class_codes

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        found: dict[str, Callable[[], nn.Module]] = {"net": hashing_towers(self.spec, unit=not self._paper, bias=True)}
        if self._weighs:
            outputs = 2 if self.params.meta == "matched" else 1
            found["weight"] = lambda: WeightNet(self.spec.bits, outputs, self.params.weight_dropout)
        if self._has_class_codes:
            found["class_codes"] = lambda: ClassCodes(self.spec.n_classes, self.spec.bits)
        return found

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The protocol's; the weight network has no weight decay in the authors' recipe (section 4)."""
        rule = self.spec.budget.optimizer
        return {name: replace(rule, decay=0.0) if name == "weight" else rule for name in self.networks()}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Who is kept, class centres (random signs, 3.2), the known noise rate, and key and counter of the draws inside the loss."""
        if run.noise_rate is None:
            raise MethodError(
                "mgsh selects by the noise rate, which this run does not tell; grant noise_rate in the protocol"
            )
        kept = train.images.new_ones(train.n_pairs)
        signs = run.generator("class centres").integers(0, 2, (self.spec.n_classes, self.spec.bits)) * 2.0 - 1
        return {
            "kept": kept,
            "centers": torch.as_tensor(signs / math.sqrt(self.spec.bits)).to(kept),
            # In float32 a rate of 0.4 would leave out one item more than 40 %.
            "rate": torch.tensor(run.noise_rate, dtype=torch.float64, device=kept.device),
            "key": draws.new_key(run.generator("dropout and shuffles")).to(kept.device),
            "step": torch.zeros((), dtype=torch.int64, device=kept.device),
        }

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        drawn = {"all": self.spec.batch_size}
        trained = ("net", "class_codes") if self.params.train_class_codes else ("net",)
        if epoch < self.warmup:
            return [Pass(drawn, (Update("warm-up", trained),), last_batch="keep")]
        updates = [Update("main", trained)]
        if self._weighs:
            drawn["meta"] = min(self.params.meta_batch, self.spec.n_meta_images)
            updates.insert(0, Update("fit weights", ("weight",)))
        if self.params.meta == "regression":
            updates.insert(0, Update("pull pairs", ("net",)))
        return [Pass(drawn, tuple(updates), last_batch="keep")]

    def observes(self, epoch: int) -> bool:
        return epoch >= self.warmup

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """The score of every item, of which small values are kept."""
        images, texts = nets["net"].images(batch.images), nets["net"].texts(batch.texts)
        if self.params.score == "class-codes":
            return {"score": prototype_residual(images, texts, nets["class_codes"].codes(), *given_labels(batch))}
        margin = self._margin(self._alignment(nets, images, texts, None))
        # Each item's own centre loss: the mean over the batch tells nothing about an item.
        return {"score": self.per_item(images, texts, batch, state["centers"], margin, one_center_loss=False)}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Keep the items of small score (P1; 3.2, selection)."""
        if not self.observes(epoch):
            return Partition()
        rate, score = float(state["rate"]), signals["score"]
        kept = small_loss_mask(score, rate, epoch, self.spec.epochs)
        facts = {"kept_share": float(kept.double().mean()), "known_rate": rate}
        return Partition(
            state={"kept": kept.to(state["kept"].dtype)},
            clean_probability={"net": 1 - normalised(score)},
            facts=facts,
        )

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        if update == "pull pairs":
            return StepOutput({"meta": self._pull_pairs(nets, batch["meta"], state)})
        if update == "fit weights":
            fit = self._matched_loss if self.params.meta == "matched" else self._regression_loss
            return StepOutput({"weight": fit(nets, batch, state)})
        return self._main(nets, batch["all"], state, selected=update == "main")

    def _main(self, nets: Networks, items: Batch, state: State, selected: bool) -> StepOutput:
        images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
        weight, aligned = None, None
        if selected:
            aligned = self._alignment(nets, images, texts, self._noise(state, 2, len(images)))
            weight = state["kept"][items.index] * self._importance(aligned)
        kept = counted(items, state["kept"][items.index] if selected else None)
        losses = self.per_item(images, texts, items, state["centers"], self._margin(aligned), kept)
        parts = {
            "hashing": weighted_mean(losses, weight, kept) if self._weighs and selected else mean_over(losses, kept)
        }
        if self.params.train_class_codes:
            fit = prototype_loss(images, texts, nets["class_codes"].codes(), *given_labels(items))
            parts["class_codes"] = mean_over(fit, kept)
        changes = {"step": state["step"] + 1}
        if self.params.update_centers:
            changes["centers"] = self._moved_centers(images, texts, items, state["centers"], weight)
        return StepOutput(parts, weight, losses, changes)

    def per_item(
        self,
        images: Tensor,
        texts: Tensor,
        items: Batch,
        centers: Tensor,
        margin: Tensor | float,
        kept: Tensor | None = None,
        one_center_loss: bool = True,
    ) -> Tensor:
        """Training loss of every item, ``[B]``; items not ``kept`` are no negatives.

        Args:
            images, texts: head outputs, ``[B, bits]``.
            items: the batch, for its labels.
            centers: ``[K, bits]``.
            margin: one number or ``[B]``.
            kept: ``[B]`` bool, None = all.
            one_center_loss: released loss: every item bears the mean of the centre losses (section 7 item 11), else its own.
        """
        params, labels = self.params, given_labels(items)
        shares = share_a_label(*labels)
        if self._paper:
            ranking = hinge_on_strangers(images, texts, shares, margin, kept)
            quantised = (images.abs() - 1).square().mean(1) + (texts.abs() - 1).square().mean(1)
            centre = center_loss(images, texts, centers, *labels, params.r)
            return ranking + params.center_weight * centre + params.quantisation_weight * quantised
        u, v = images.tanh(), texts.tanh()
        centre = center_loss(u, v, centers, *labels, params.r)
        if one_center_loss:
            centre = mean_over(centre, kept)
        ranking = released_ranking(u, v, shares, margin, params.tau, params.shift, kept)
        return params.mix * ranking + (1 - params.mix) * (centre + quantisation(u, v))

    def _alignment(self, nets: Networks, images: Tensor, texts: Tensor, noise: Tensor | None) -> Tensor | None:
        """``a_i`` in [0, 1], ``[B]``, without gradient; None without a weight network."""
        if not self._weighs:
            return None
        logits = nets["weight"].logits((images * texts).detach(), noise).detach()
        return logits.softmax(1)[:, 0] if self.params.meta == "matched" else logits[:, 0].sigmoid()

    def _importance(self, aligned: Tensor | None) -> Tensor | float:
        if aligned is None:
            return 1.0
        return 1 - aligned if self.params.polarity == "hard" else aligned

    def _margin(self, aligned: Tensor | None) -> Tensor | float:
        if aligned is None or not self.params.adaptive_margin:
            return self.params.gamma
        return adaptive_margin(aligned, self.params.gamma, self.params.tau)

    def _pull_pairs(self, nets: Networks, meta: Batch, state: State) -> Tensor:
        """The released step of the heads on verified pairs, all of whose labels count as given (3.2, meta step 1)."""
        ones = meta.images.new_ones(len(meta.images), self.spec.n_classes)
        pairs = replace(meta, labels=ones, text_labels=ones)
        images, texts = nets["net"].images(meta.images), nets["net"].texts(meta.texts)
        losses = self.per_item(images, texts, pairs, state["centers"], self.params.gamma, meta.valid)
        return mean_over(losses, meta.valid)

    def _regression_loss(self, nets: Networks, batch: Mapping[str, Batch], state: State) -> Tensor:
        """Binary cross-entropy against the alignment target of the kept training items (3.2, meta steps 2 and 4)."""
        items = batch["all"]
        images, texts = nets["net"].images(items.images).detach(), nets["net"].texts(items.texts).detach()
        kept = counted(items, state["kept"][items.index])
        target = alignment_target(images, texts, self._shuffled(state, kept, len(images)))
        logits = nets["weight"].logits(images * texts, self._noise(state, 1, len(images), fitting=True))[:, 0]
        return mean_over(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), kept)

    def _matched_loss(self, nets: Networks, batch: Mapping[str, Batch], state: State) -> Tensor:
        """Cross-entropy of matched against mismatched verified pairs, codes one virtual step ahead (P2, P8)."""
        meta, ahead = batch["meta"], nets["net"].at(self.virtual_parameters(nets, batch["all"], state))
        images, texts = ahead.images(meta.images), ahead.texts(meta.texts)
        order = self._shuffled(state, meta.valid, len(images))
        products = torch.cat([images * texts, images * texts[order]]).detach()
        scores = nets["weight"].logits(products, self._noise(state, 1, len(products), fitting=True)).log_softmax(1)
        matched, mismatched = scores[: len(images), 0], scores[len(images) :, 1]
        return -mean_over(matched + mismatched, meta.valid) / 2

    def virtual_parameters(self, nets: Networks, items: Batch, state: State) -> Parameters:
        """``Theta' = Theta - alpha grad mean_i L_i`` over the kept items, plain gradient descent (P8).

        The loss is not weighted, so the weight network enters only through margins, which carry no gradient to it (P8).
        """
        net, kept = nets["net"], counted(items, state["kept"][items.index])

        def unweighted(params: Parameters) -> Tensor:
            at = net.at(params)
            images, texts = at.images(items.images), at.texts(items.texts)
            margin = self._margin(self._alignment(nets, images, texts, None))
            return mean_over(self.per_item(images, texts, items, state["centers"], margin, kept), kept)

        assert net.learning_rate is not None
        return virtual_step(net.params, grad(unweighted)(dict(net.params)), net.learning_rate)

    def _shuffled(self, state: State, kept: Tensor | None, size: int) -> Tensor:
        """A permutation ``[B]`` that moves kept items among themselves."""
        order = draws.permutation(state["key"], 4 * state["step"], size)
        return order if kept is None else shuffled_within(order, kept)

    def _noise(self, state: State, purpose: int, size: int, fitting: bool = False) -> Tensor | None:
        """Numbers for dropout, ``[size, 96]``; None where nothing is dropped. Another ``purpose`` (1 to 3), another draw."""
        if not self._weighs or not self.params.weight_dropout or not (fitting or self.params.noisy_weights):
            return None
        return draws.uniform(state["key"], 4 * state["step"] + purpose, (size, sum(WeightNet.widths)))

    def _moved_centers(
        self, images: Tensor, texts: Tensor, items: Batch, centers: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Released: of tanh of the outputs (dead code); paper: of the codes, class means of unit norm (P5)."""
        weight = torch.ones_like(images[:, 0]) if weight is None else weight
        if items.valid is not None:
            weight = torch.where(items.valid, weight, 0.0)
        u, v = (images, texts) if self._paper else (images.tanh(), texts.tanh())
        image_labels, text_labels = given_labels(items)
        return moved_centers(
            u.detach(), v.detach(), image_labels * weight[:, None], text_labels * weight[:, None], centers,
            self.params.center_rate, unit_means=self._paper,
        )  # fmt: skip


def weighted_mean(losses: Tensor, weight: Tensor | None, kept: Tensor | None) -> Tensor:
    """``sum_i w_i l_i / (sum_i w_i + 1e-8)`` over the kept items (3.2, main step; P3, P8)."""
    assert weight is not None
    weight = weight if kept is None else torch.where(kept, weight, 0.0)
    return (weight * losses).sum() / (weight.sum() + SMALL)


def center_loss(u: Tensor, v: Tensor, centers: Tensor, labels: Tensor, text_labels: Tensor, r: float) -> Tensor:
    """``sum_m phi_r(p^m_i)``, ``p_i = sum_k y_ik softmax_k(f_i . C_k)``, ``[B]`` (3.2 ``l^c``; P5, eq. 12 and 13 with t = 1)."""
    of_images, of_texts = (
        robust_shape(log_label_probability(codes, centers, y), r) for codes, y in ((u, labels), (v, text_labels))
    )
    return of_images + of_texts


def released_ranking(
    u: Tensor, v: Tensor, shares: Tensor, margin: Tensor | float, tau: float, shift: float, kept: Tensor | None = None
) -> Tensor:
    """``l^r_i`` of 3.2, ``[B]``: both sums run over the row, and the margin of the row also serves the second direction."""
    similarity = u @ v.mT
    own = similarity.diagonal()
    of_row = margin[:, None] if isinstance(margin, Tensor) else margin
    eye = torch.eye(len(own), dtype=torch.bool, device=own.device)
    first, second = (
        log_sum_of_negatives(
            torch.where(eye, own[:, None], shifted_negatives(similarity, anchor, of_row, shift)), shares, tau, kept
        )
        for anchor in (own[:, None], own[None, :])
    )
    return first + second - 2 * own + 2 * margin


def hinge_on_strangers(
    f1: Tensor, f2: Tensor, shares: Tensor, margin: Tensor | float, kept: Tensor | None = None
) -> Tensor:
    """P4: ``[g_i + d_ii - d_ik]_+``, ``d = 1 - cosine``: mean over kept k without a common label and over both directions, ``[B]``.

    0 for an item without such a k. ``shares [B, B]``: the image of the row shares a label with the text of the column.
    """
    similarity = F.normalize(f1, dim=1) @ F.normalize(f2, dim=1).mT
    own = similarity.diagonal()[:, None]
    strangers = ~(shares | torch.eye(len(own), dtype=torch.bool, device=own.device))
    of_row = margin[:, None] if isinstance(margin, Tensor) else margin

    def asked(scores: Tensor, compared: Tensor) -> Tensor:
        compared = compared if kept is None else compared & kept[None, :]
        hinges = (of_row + scores - own).clamp(min=0)
        return torch.where(compared, hinges, 0.0).sum(1) / compared.sum(1).clamp(min=1)

    return (asked(similarity, strangers) + asked(similarity.mT, strangers.mT)) / 2


def adaptive_margin(aligned: Tensor, gamma: float, tau: float) -> Tensor:
    """``gamma / (1 + (1/a - 1)^tau)``, ``[B]``: hard pairs have small ones (3.2 meta step 3; P4 with w = 1 - a)."""
    return gamma / (1 + (1 / (aligned + SMALL) - 1).clamp(min=SMALL) ** tau)


def alignment_target(images: Tensor, texts: Tensor, order: Tensor) -> Tensor:
    """``w_det``, target of the released weight network (3.2 meta step 2), ``[B]``.

    ``sigmoid(0.5 (a_i . b_i - a_i . b_order(i)))`` of codes of 0 and 1.
    """
    a, b = (images > 0).to(images.dtype), (texts > 0).to(texts.dtype)
    return (0.5 * ((a * b).sum(1) - (a * b[order]).sum(1))).sigmoid()


def shuffled_within(order: Tensor, kept: Tensor) -> Tensor:
    """The permutation ``order [B]`` made one that moves the kept items among themselves, and the others likewise, ``[B]``."""
    places = (~kept).long().argsort(stable=True)
    shuffled = order[(~kept)[order].long().argsort(stable=True)]
    return torch.zeros_like(order).scatter(0, places, shuffled)


def small_loss_mask(scores: Tensor, rate: float, epoch: int, ramp: int) -> Tensor:
    """The ``int((1 - forget) N)`` items of smallest score, ``[N]`` bool; ``forget = rate min(1, (epoch + 1) / ramp)``.

    P1 and 3.2 (selection); ``epoch`` counts from 0, ``ramp`` is in epochs.
    """
    forget = rate * min(1.0, (epoch + 1) / ramp)
    smallest = scores.argsort(stable=True)[: int((1 - forget) * len(scores))]
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kept[smallest] = True
    return kept


def moved_centers(
    u: Tensor,
    v: Tensor,
    image_members: Tensor,
    text_members: Tensor,
    centers: Tensor,
    rate: float,
    unit_means: bool = False,
    floor: float = 1e-6,
) -> Tensor:
    """Moving average of weighted class means over both modalities, unit rows ``[K, bits]``; a class without members stays (P5).

    Args:
        u, v: codes ``[B, bits]``.
        image_members, text_members: ``[B, K]``, labels times the weight of the item.
        centers: unit rows ``[K, bits]``.
        rate: share of the new mean.
        unit_means: give the means unit norm before they are averaged in (paper); the release does not.
        floor: added to the sum of weights.
    """
    mass = image_members.sum(0) + text_members.sum(0)
    means = (image_members.mT @ u + text_members.mT @ v) / (mass[:, None] + floor)
    if unit_means:
        means = F.normalize(means, dim=1)
    return F.normalize((1 - rate) * centers + rate * means, dim=1)

"""``mrl``: Learning Cross-Modal Retrieval with Noisy Labels (specs/mrl.md), real-valued."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Batch, Budget, Difference, GradientMethod, Networks, Pass, Reinit, Spec, State, StepOutput, Update
from .hashing_towers import HashingTowers, hidden_width
from .label_losses import label_cross_entropy
from .optim import Optimizer, Schedule
from .registry import MethodError, register

# Within the stable ranges of the paper's Fig. 4, 0.5 to 0.8 and 0.85 to 0.95 (mrl.md section 4).
BETA = {"wikipedia": 0.7, "inria": 0.9}
OTHER_BETA = 0.7


class ClusterTowers(HashingTowers):
    """Heads with a bias in the last layer and without tanh, and one unit centre per class (mrl.md section 2).

    The released code stores the centres as columns and gives them unit length at the start of every iteration; here
    they are rows and get it after every step, which leaves every gradient as it is.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.image_dim, spec.text_dim, hidden_width(spec), spec.backbone.dim, bias=True, squash=False)
        # Orthogonal as long as there are no more classes than dimensions.
        centers = nn.init.orthogonal_(torch.empty(spec.n_classes, spec.backbone.dim))
        self.centers = nn.Parameter(F.normalize(centers, dim=-1))

    def class_logits(self, embeddings: Tensor, tau: float) -> Tensor:
        """``z . c_k / tau``, ``[B, n_classes]``."""
        return embeddings @ self.centers.mT / tau

    def constrain(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Centres of unit length."""
        return {**params, "centers": F.normalize(params["centers"], dim=-1)}


@register
class Mrl(GradientMethod):
    """Draw items to the centre of their given class, easy ones the most, and both modalities of an item together.

    With unit embeddings ``z_i^v`` of view v, its own noisy class ``y_i^v`` and class centres ``c_k`` of unit length::

        p_i^v = softmax_k(z_i^v . c_k / tau)                                                      (3.1)
        L_r   = mean_i sum_v log(1 - p_i^v[y_i^v])                                                (3.2; Eq. 5)
        L_c   = mean_i sum_v -log P_i^v,  P_i^v: share of item i's other view in the softmax      (3.3; Eq. 6)
                of z_i^v over all other embeddings of the batch
        L     = beta L_r + (1 - beta) L_c                                                         (3.4)

    ``L_r`` is cross-entropy in which every item counts with ``p_y / (1 - p_y)``, a factor without gradient. This is the
    logged weight, mean of both views, in units of the largest value that unit vectors allow, ``e^(2 / tau) / (K - 1)``:
    weights of all epochs and runs share a scale. As ``L_r`` is negative, the logged loss of an item is its
    cross-entropy.

    An item with several labels has the mean of ``log(1 - p_k)`` over them, one without labels has no ``L_r`` (this
    suite's extension).
    """

    @dataclass(frozen=True)
    class Params:
        loss: Literal["rc", "ce"] = "rc"  # robust clustering or cross-entropy; README (MCE), mrl.md 3.2
        beta: float | None = 0.7  # share of the label loss; README; None = by data set, from the paper's Fig. 4
        tau: float = 1.0  # temperature of both losses; paper and released, mrl.md section 4
        with_self: bool = False  # paper: self-similarity in numerator and denominator of Eq. 6; mrl.md 3.3

    label = "MRL"
    reference = "P. Hu et al., Learning Cross-Modal Retrieval with Noisy Labels, CVPR 2021; github.com/penghu-cs/MRL"
    spec_page = "mrl.md"
    task = "label-hashing"
    binary = False
    variants = {
        "released": Params(),
        "released-defaults": Params(loss="ce", beta=0.5),
        "paper": Params(beta=None, with_self=True),
        "clustering-only": Params(beta=1.0),
        "contrastive-only": Params(beta=0.0),
        "cross-entropy": Params(loss="ce", beta=1.0),
    }
    differences = (
        Difference("loss on labels", "robust clustering (RC)", "cross-entropy by default, README: MCE", "mrl.md section 7"),
        Difference("beta", "chosen on validation, by data set", "0.5; README 0.7", "mrl.md section 4"),
        Difference("self-similarity in Eq. 6", "in numerator and denominator", "in neither", "mrl.md 3.3"),
        Difference("schedule", "not said", "cosine in epochs, one epoch late (all variants, recipe)", "mrl.md section 4"),
        Difference("batch", "50 to 500 by data set", "100", "mrl.md section 4"),
        Difference("epochs", "100", "100; README 30 on Wikipedia", "mrl.md section 4"),
        Difference("noisy labels", "per modality", "per modality, one class that does not exist", "mrl.md section 7"),
        Difference("noise", "not said", "one unseeded realisation per rate, shared by all runs", "mrl.md section 7"),
    )  # fmt: skip
    recipe = Budget(
        epochs=100,
        batch_size=100,
        optimizer=Optimizer("adam", 1e-4, (0.5, 0.999), 1e-8, decay=0.0, schedule=Schedule("cosine-in-epochs", lag=1)),
    )

    @property
    def beta(self) -> float:
        """The share of the label loss that is used."""
        given = self.params.beta
        return BETA.get(self.spec.dataset, OTHER_BETA) if given is None else given

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        if self.spec.n_classes < 2:
            raise MethodError(
                f"mrl compares classes but the data set has {self.spec.n_classes}; take one with at least two"
            )
        return {"net": lambda: ClusterTowers(self.spec)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"all": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, net, params = batch["all"], nets["net"], self.params
        images, texts = net.images(items.images), net.texts(items.texts)
        pulled = multimodal_contrastive((images, texts), params.tau, items.valid, params.with_self)
        parts = {"contrastive": (1 - self.beta) * items.mean(pulled)}
        if self.beta == 0:
            return StepOutput(parts, sample_loss=pulled)
        assert items.labels is not None
        assert items.text_labels is not None
        sides = [(net.class_logits(z, params.tau), y) for z, y in ((images, items.labels), (texts, items.text_labels))]
        cross_entropy = _sum_of(label_cross_entropy(logits, y) for logits, y in sides)
        if params.loss == "ce":
            parts["cross_entropy"] = self.beta * items.mean(cross_entropy)
            return StepOutput(parts, sample_loss=cross_entropy)
        parts["clustering"] = self.beta * items.mean(_sum_of(robust_clustering(logits, y) for logits, y in sides))
        weight = _sum_of(implicit_weight(logits, y, params.tau) for logits, y in sides) / 2
        return StepOutput(parts, weight.detach(), cross_entropy)


def log_complement(logits: Tensor) -> Tensor:
    """``log(1 - p_k)``, ``p = softmax(logits)``, ``[B, K]``, finite also where p_k rounds to 1."""
    likeliest = torch.arange(logits.shape[1], device=logits.device) == logits.argmax(1, keepdim=True)
    others = logits.masked_fill(likeliest, torch.finfo(logits.dtype).min / 4).logsumexp(1, keepdim=True)
    p = torch.where(likeliest, 0.0, logits.softmax(1))
    return torch.where(likeliest, others - logits.logsumexp(1, keepdim=True), torch.log1p(-p))


def robust_clustering(logits: Tensor, labels: Tensor) -> Tensor:
    """``log(1 - p_y)`` of every item, ``[B]``, at most 0 (3.2; Eq. 5); mean over several labels, 0 without.

    Args:
        logits: ``[B, K]``.
        labels: ``[B, K]`` of 0 and 1.
    """
    return mean_over_labels(log_complement(logits), labels)


def implicit_weight(logits: Tensor, labels: Tensor, tau: float) -> Tensor:
    """``p_y / (1 - p_y)`` in units of ``e^(2 / tau) / (K - 1)``, ``[B]`` in [0, 1] (mrl.md section 8).

    No item has more, because the logits of unit vectors lie in ``+-1 / tau``.
    """
    log_odds = logits.log_softmax(1) - log_complement(logits)
    log_largest = 2 / tau - math.log(logits.shape[1] - 1)
    return mean_over_labels((log_odds - log_largest).exp().clamp(max=1), labels)


def multimodal_contrastive(
    views: Sequence[Tensor], tau: float, valid: Tensor | None = None, with_self: bool = False
) -> Tensor:
    """``(2/m) sum_v -log P_i^v`` of every item, ``[B]`` (3.3; Eq. 6).

    P is what the other views of item i have in a softmax over all embeddings of the batch but the item's own of view v.

    Args:
        views: m tensors ``[B, L]`` of unit rows.
        tau: temperature.
        valid: ``[B]`` bool or None; the others neither have a loss nor serve as negatives.
        with_self: the similarity of an embedding to itself stays in numerator and denominator (the paper's Eq. 6).
    """
    m, stacked = len(views), torch.cat(list(views))
    size = len(stacked) // m
    logits = stacked @ stacked.mT / tau
    counted = torch.ones_like(logits, dtype=torch.bool)
    if not with_self:
        counted = ~torch.eye(m * size, dtype=torch.bool, device=logits.device)
    same_item = torch.eye(size, dtype=torch.bool, device=logits.device).repeat(m, m)
    positives = same_item & counted
    if valid is not None:
        counted = counted & (valid.repeat(m) | same_item)
    # Finite, so that the gradient of a masked entry is 0 and not NaN.
    lowest = torch.finfo(logits.dtype).min / 4
    reached, whole = (torch.where(mask, logits, lowest).logsumexp(1) for mask in (positives, counted))
    losses = 2 / m * (whole - reached).reshape(m, size).sum(0)
    return losses if valid is None else torch.where(valid, losses, 0.0)


def mean_over_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of ``values [B, K]`` over the given labels, ``[B]``; 0 for rows without labels."""
    return (labels * values).sum(1) / labels.sum(1).clamp(min=1)


def _sum_of(views: Iterable[Tensor]) -> Tensor:
    first, second = views
    return first + second

"""``rshnl``: Robust Self-Paced Hashing with Noisy Labels (specs/rshnl.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
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
    Spec,
    State,
    StepOutput,
    Update,
)
from .hashing_towers import hashing_towers, hidden_width, multilayer_head, spread_last_layer
from .label_losses import contrastive_hashing, log_label_probability, robust_shape
from .optim import Optimizer, Schedule
from .registry import MethodError, register

# Chosen by the authors per data set (rshnl.md section 5).
GAMMA = {"wikipedia": 3.0, "xmedia": 5.0, "inria": 8.0, "xmedianet": 9.0}
ALPHA = {"wikipedia": 0.05, "xmedia": 0.10, "inria": 0.30, "xmedianet": 0.05}
OTHER_ALPHA = 0.10


class Centers(Network):
    """One centre per class, real-valued, of unit norm and learnt: an MLP fed with the identity matrix (rshnl.md section 2)."""

    def __init__(self, n_classes: int, hidden: int, bits: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.head = multilayer_head(n_classes, hidden, bits)
        spread_last_layer(self.head, n_classes)

    def centers(self) -> Tensor:
        """``[n_classes, bits]``, unit rows."""
        like = next(self.head.parameters())
        identity = torch.eye(self.n_classes, dtype=like.dtype, device=like.device)
        return F.normalize(self.head(identity).tanh(), dim=-1)


@register
class Rshnl(GradientMethod):
    """Learn from easy items first, measured by how well their codes fit the centre of their given class.

    With unit codes ``h^m`` of both modalities and class centres ``W``::

        v_i^m = sum_k y_ik softmax_k(h_i^m W^T)                     (3.2; Eq. 4-5)
        l_i   = phi_r(v_i^1) + phi_r(v_i^2)                         (3.3; Eq. 6)
        L     = mean_i l_i + alpha L_C                              first epochs
        w_i   = max(0, 1 - l_i / gamma),   no gradient              (3.4; Eq. 12)
        L     = mean_i [w_i l_i + gamma (w_i^2 / 2 - w_i)] + alpha L_C   afterwards (Eq. 7-8)

    ``L_C`` is the label-free contrastive loss (3.1). To the method, an item of weight 0 is noisy. The window in which gamma selects at all
    lies between what a perfect fit and what no fit costs; on data that the authors did not use it is
    ``gamma = l_floor + pace (l_unif - l_floor)`` (spec section 4). Records hold it, so that ``w / (1 - l_floor / gamma)`` can be
    compared across methods.

    Where items have several labels the window is still that of one label: v sums over all given labels, so that difficulties lie lower
    and more items count. An item without labels has ``l = 2 phi_r(0)`` and no gradient.
    """

    @dataclass(frozen=True)
    class Params:
        r: float = 0.01  # shape of the loss, called q in the code; main.py
        tau: float = 1.0  # temperature of the contrastive loss; main.py
        alpha: float | None = None  # weight of L_C; None = the authors' of the data set (rshnl.md section 5), else 0.1
        gamma: float | None = None  # pace, in units of l_i; None = the authors' of the data set, else by section 4
        pace: float = 0.4  # place of gamma in its window on other data sets; rshnl.md section 4: 0.3 to 0.5
        warmup_epochs: int = 5  # N_w (tp); main.py: 5 of 150, kept in epochs because a shorter one starts dead (4.4)
        fixed_centers: bool = False  # paper: random binary centres instead of learnt ones; rshnl.md section 2
        center_temperature: bool = False  # paper: Eq. 4 divides by tau; no difference at tau = 1; rshnl.md 3.2
        with_self: bool = False  # paper: self-similarity in Eq. 2; rshnl.md 3.1
        # "hard": 1 where linear weights are above 0; "mean": the batch mean for all; "none": L_p to the end
        weights: Literal["linear", "hard", "mean", "none"] = "linear"  # rshnl.md section 5 and 4.3
        labels: bool = True  # False: L_C alone, with weight 1; what RSHNL-1 amounts to (rshnl.md 4.4)

    label = "RSHNL"
    reference = (
        "R. Pu et al., Robust Self-Paced Hashing for Cross-Modal Retrieval with Noisy Labels, AAAI 2025; "
        "github.com/perquisite/RSHNL"
    )
    spec_page = "rshnl.md"
    task = "label-hashing"
    variants = {
        "released": Params(),
        "paper": Params(fixed_centers=True, center_temperature=True, with_self=True),
        "rshnl-1": Params(warmup_epochs=0),
        "rshnl-2": Params(alpha=0.0),
        "rshnl-3": Params(weights="none"),
        "rshnl-3-scaled": Params(weights="mean"),
        "rshnl-s": Params(weights="hard"),
        "rshnl-d": Params(gamma=200.0),
        "label-free": Params(labels=False),
    }
    differences = (
        Difference("class centres", "random, binary, fixed", "output of a network, real-valued, learnt", "rshnl.md section 7"),
        Difference("codes inside the losses", "tanh", "tanh, then unit norm (in both variants here)", "rshnl.md section 7"),
        Difference("self-similarity in the contrastive loss", "in numerator and denominator", "in neither", "rshnl.md 3.1"),
        Difference("temperature of class probabilities", "tau", "none; no difference at tau = 1", "rshnl.md section 7"),
        Difference("weights", "grow to 1 as clean items come in", "at most 1 - l_floor / gamma: 0.07 to 0.18", "rshnl.md 4.2"),
        Difference("bound on gamma", "0 < gamma < 198", "3 to 9, chosen per data set", "rshnl.md 4.1"),
        Difference("validation", "MAP peak", "clean labels of half of the official test set", "rshnl.md section 7"),
        Difference("symmetric noise", "a wrong class at the stated rate", "any class, the true one included", "rshnl.md section 7"),
        Difference("noise and seeds", "not said", "one realisation for all seeds", "rshnl.md section 7"),
        Difference("classes of XMedia", "20", "21, one of them empty", "rshnl.md section 7"),
    )  # fmt: skip
    recipe = Budget(
        epochs=150,
        batch_size=256,
        optimizer=Optimizer("adam", 1e-4, (0.9, 0.999), 1e-8, decay=0.0, schedule=Schedule("constant")),
    )

    @property
    def gamma(self) -> float:
        """The pace that is used."""
        if self.params.gamma is not None:
            return self.params.gamma
        if self.spec.dataset in GAMMA:
            return GAMMA[self.spec.dataset]
        low, high = difficulty_window(self.spec.n_classes, self.params.r)
        return low + self.params.pace * (high - low)

    @property
    def alpha(self) -> float:
        """The weight of the contrastive loss that is used."""
        given = self.params.alpha
        return ALPHA.get(self.spec.dataset, OTHER_ALPHA) if given is None else given

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        towers = hashing_towers(self.spec)
        if not self._learns_centers:
            return {"net": towers}
        return {"net": towers, "centers": lambda: _centers(self.spec)}

    @property
    def _learns_centers(self) -> bool:
        return self.params.labels and not self.params.fixed_centers

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        if not (self.params.labels and self.params.fixed_centers):
            return {}
        signs = run.generator("class centres").integers(0, 2, (self.spec.n_classes, self.spec.bits)) * 2.0 - 1
        return {"centers": torch.as_tensor(signs / math.sqrt(self.spec.bits)).to(train.images.dtype)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        self_paced = epoch >= self.warmup_epochs(self.params.warmup_epochs) and self.params.weights != "none"
        train = ("net", "centers") if self._learns_centers else ("net",)
        update = Update("self-paced" if self_paced else "warm-up", train)
        return [Pass({"all": self.spec.batch_size}, (update,), last_batch="keep")]

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        if not self.params.labels:
            return Partition()
        low, high = difficulty_window(self.spec.n_classes, self.params.r)
        return Partition(facts={"gamma": self.gamma, "l_floor": low, "l_unif": high, "alpha": self.alpha})

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, params = batch["all"], self.params
        images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
        contrastive = contrastive_hashing(images, texts, params.tau, params.r, items.valid, params.with_self)
        if not params.labels:
            return StepOutput({"contrastive": items.mean(contrastive)}, sample_loss=contrastive)
        centers = nets["centers"].centers() if self._learns_centers else state["centers"]
        difficulty = self.difficulty(images, texts, centers, items)
        parts = {"contrastive": self.alpha * items.mean(contrastive)}
        if update == "warm-up":
            return StepOutput({"centers": items.mean(difficulty)} | parts, sample_loss=difficulty)
        weight, paced = self.self_paced(difficulty)
        if params.weights == "mean":
            # The label loss is as small beside L_C as self-pacing makes it, but no item is preferred.
            weight = items.mean(weight).expand_as(weight)
            paced = weight * difficulty
        return StepOutput({"self_paced": items.mean(paced)} | parts, weight, difficulty)

    def difficulty(self, images: Tensor, texts: Tensor, centers: Tensor, items: Batch) -> Tensor:
        """``l_i`` of 3.3, ``[B]``."""
        assert items.labels is not None
        assert items.text_labels is not None
        sides = ((images, items.labels), (texts, items.text_labels))
        temperature = self.params.tau if self.params.center_temperature else 1.0
        first, second = (
            robust_shape(log_label_probability(h, centers, y, temperature), self.params.r) for h, y in sides
        )
        return first + second

    def self_paced(self, difficulty: Tensor) -> tuple[Tensor, Tensor]:
        """``w_i`` and ``w_i l_i + gamma (w_i^2/2 - w_i)`` of 3.4; for hard weights the regulariser is ``-gamma w_i``."""
        weight = (1 - difficulty / self.gamma).clamp(min=0).detach()
        if self.params.weights == "hard":
            weight = (weight > 0).to(difficulty.dtype)
            return weight, weight * difficulty - self.gamma * weight
        return weight, weight * difficulty + self.gamma * (weight * weight / 2 - weight)


def difficulty_window(n_classes: int, r: float) -> tuple[float, float]:
    """What an item costs at best and without information, ``(l_floor, l_unif)`` (rshnl.md section 4).

    At best codes equal their centres and these are the corners of a simplex: ``v = e / (e + (K-1) e^(-1/(K-1)))``; without: ``v = 1/K``.

    Raises:
        MethodError: fewer than two classes.
    """
    if n_classes < 2:
        raise MethodError(f"rshnl compares classes but the data set has {n_classes}; take one with at least two")
    others = (n_classes - 1) * math.exp(-1 / (n_classes - 1))
    return _difficulty_at(math.e / (math.e + others), r), _difficulty_at(1 / n_classes, r)


def _difficulty_at(v: float, r: float) -> float:
    """``l`` where both modalities give the class the probability v."""
    return 2 * float(robust_shape(torch.tensor(v, dtype=torch.float64).log(), r))


def _centers(spec: Spec) -> Centers:
    return Centers(spec.n_classes, hidden_width(spec), spec.bits)

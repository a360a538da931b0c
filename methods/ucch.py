"""``ucch``: Unsupervised Contrastive Cross-modal Hashing (specs/ucch.md), the label-free reference line of label-noise tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
from . import draws
from .contract import Batch, Budget, Difference, GradientMethod, Networks, Pass, Reinit, Run, State, StepOutput, Update
from .hashing_towers import hashing_towers
from .optim import Optimizer, Schedule
from .registry import register


@register
class Ucch(GradientMethod):
    """Codes pick the binary key of their own item among keys drawn from a memory; a ranking loss ties the two modalities.

    With unit codes ``h^x, h^y``, a memory row ``V_i`` per item, K drawn items ``j`` and ``S = h^x h^yT``::

        L_c = sum_m mean_i -log softmax_0( sign(V_j) . h_i^m / (t sqrt(bits)) ),   column 0 = own item   (3.1)
        C^r_ij = S_ij if S_ij >= S_ii - m else S_ij - s
        L_r = mean_i [kappa log sum_j exp(C^r_ij / kappa) - S_ii + m] + the same over columns           (3.2; Eq. 14)
        L   = beta L_c + (1 - beta) L_r                                                                 (3.3)

    After each step ``V_i <- normalise(delta V_i + (1 - delta) normalise((h^x + h^y) / 2))``. In the first epoch the keys are those of
    the batch itself, and delta is 0. Labels are never seen: at another rate of label noise only the draws of keys and memory are others.
    The heads are those of the task with a bias in the last layer; the authors' text head has one layer less, and hidden width 8192.
    """

    @dataclass(frozen=True)
    class Params:
        keys: int = 4096  # K, drawn with replacement from all items, the own one included; paper, config
        temperature: float = 0.9  # t; paper, config
        momentum: float = 0.4  # delta of the memory; paper, config
        margin: float = 0.2  # m; paper, config
        shift: float = 1.0  # s; config (README for MIRFlickr: 0.1); paper: a positive constant
        kappa: float = 1.0  # of the log-sum-exp; src/utils.py
        beta: float = 0.9  # weight of L_c (--alpha); config (README for MIRFlickr: 0.7)
        warmup_epochs: int = 1  # epochs with the keys of the batch; config; paper: none
        unit_memory: bool = True  # the memory and what enters it are normalised; NCEAverage.py; paper Eq. 5: neither

    label = "UCCH"
    reference = (
        "P. Hu et al., Unsupervised Contrastive Cross-modal Hashing, IEEE TPAMI 45(3), 2023; github.com/penghu-cs/UCCH"
    )
    spec_page = "ucch.md"
    task = "label-hashing"
    variants = {
        "released": Params(),
        "paper": Params(warmup_epochs=0, unit_memory=False),
        "mirflickr": Params(beta=0.7, shift=0.1),
    }
    differences = (
        Difference("memory", "no normalisation (Eq. 5)", "rows and what enters them are normalised", "ucch.md section 7"),
        Difference("first epoch", "as all others", "keys of the batch itself, momentum 0", "ucch.md section 7"),
        Difference("keys", "other items", "any items, the own one included", "ucch.md section 7"),
        Difference("contrastive loss", "sum over items", "mean over the batch, sum of both modalities", "ucch.md section 7"),
        Difference("epoch", "2000 random items of the database", "its first 2000, by label; ours: validation", "ucch.md section 7"),
        Difference("training set", "all items but queries", "the same; ours: the protocol's", "ucch.md section 4"),
    )  # fmt: skip
    recipe = Budget(
        epochs=20,
        batch_size=256,
        optimizer=Optimizer(
            "adam",
            1e-4,
            (0.9, 0.999),
            1e-8,
            decay=1e-6,
            decay_on="all",
            clip_norm=1.0,
            schedule=Schedule("step", lag=1),
        ),
    )

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": hashing_towers(self.spec, bias=True)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """The memory ``[n_pairs, bits]``, and key and counter of the draws inside the loss."""
        memory = first_memory(train.n_pairs, self.spec.bits, run.generator("memory"))
        device = train.images.device
        return {
            "memory": torch.as_tensor(memory).to(train.images),
            "key": draws.new_key(run.generator("keys")).to(device),
            "step": torch.zeros((), dtype=torch.int64, device=device),
        }

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        warm_up = epoch < self.warmup_epochs(self.params.warmup_epochs)
        return [Pass({"all": self.spec.batch_size}, (Update("warm-up" if warm_up else "train"),))]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, params, memory = batch["all"], self.params, state["memory"]
        codes = nets["net"].images(items.images), nets["net"].texts(items.texts)
        scale = params.temperature * math.sqrt(self.spec.bits)
        if update == "warm-up":
            momentum, logits = 0.0, [batch_logits(h, *codes, scale, items.valid) for h in codes]
        else:
            index = self.drawn_keys(items, state)
            momentum, logits = params.momentum, [memory_logits(h, memory, index, scale) for h in codes]
        contrastive = params.beta * (first_cross_entropy(logits[0]) + first_cross_entropy(logits[1]))
        ranking = (1 - params.beta) * ranking_loss(*codes, params.margin, params.shift, params.kappa, items.valid)
        moved = remembered(*codes, memory, items.index, momentum, params.unit_memory, items.valid)
        return StepOutput(
            {"contrastive": items.mean(contrastive), "ranking": items.mean(ranking)},
            sample_loss=contrastive + ranking,
            state={"memory": moved, "step": state["step"] + 1},
        )

    def drawn_keys(self, items: Batch, state: State) -> Tensor:
        """``[B, 1 + K]`` items: the own one, and K drawn with replacement (3.1)."""
        shape = (len(items.index), self.params.keys)
        others = draws.integers(state["key"], state["step"], self.spec.n_pairs, shape)
        return torch.cat([items.index[:, None], others], 1)


def first_memory(n_pairs: int, bits: int, random: np.random.Generator) -> np.ndarray:
    """``[n_pairs, bits]`` rows ``normalise(sign(2 sigma z - sigma))``, z normal; they lean to -1 as released, P(+1) = 0.31 (3.1)."""
    # The sign does not depend on sigma = sqrt(3 / bits).
    return np.where(random.standard_normal((n_pairs, bits)) > 0.5, 1.0, -1.0) / math.sqrt(bits)


def memory_logits(h: Tensor, memory: Tensor, index: Tensor, scale: float) -> Tensor:
    """``sign(V_j) . h / scale`` for the drawn ``index [B, 1 + K]``, ``[B, 1 + K]`` (3.1); no gradient to the memory.

    Args:
        h: ``[B, bits]``.
        memory: ``[n_pairs, bits]``.
        index: column 0 is the own item.
        scale: ``t sqrt(bits)``, because keys are not of unit length.
    """
    return (h @ memory.detach().sign().mT).gather(1, index) / scale


def batch_logits(h: Tensor, images: Tensor, texts: Tensor, scale: float, valid: Tensor | None = None) -> Tensor:
    """The same with the keys ``sign((h^x + h^y) / 2)`` of the batch, the own pair first, ``[B, B]`` (3.1, warm-up); no gradient to keys.

    Pairs that are not ``valid`` are nobody's key but their own.
    """
    keys = ((images + texts) / 2).detach().sign()
    logits, size = h @ keys.mT / scale, len(h)
    if valid is not None:
        own = torch.eye(size, dtype=torch.bool, device=h.device)
        logits = torch.where(valid | own, logits, torch.finfo(h.dtype).min / 4)
    return logits.gather(1, own_first(size, h.device))


def own_first(size: int, device: torch.device) -> Tensor:
    """``[size, size]``: row i is i, then all others in order."""
    own = torch.arange(size, device=device)[:, None]
    others = torch.arange(size - 1, device=device).expand(size, size - 1)
    return torch.cat([own, others + (others >= own).long()], 1)


def first_cross_entropy(logits: Tensor) -> Tensor:
    """``-log softmax_0``, ``[B]``."""
    return logits.logsumexp(1) - logits[:, 0]


def remembered(
    images: Tensor,
    texts: Tensor,
    memory: Tensor,
    index: Tensor,
    momentum: float,
    unit: bool = True,
    valid: Tensor | None = None,
) -> Tensor:
    """The memory ``[n_pairs, bits]`` with the batch's rows moved towards the mean of both codes (3.1); without gradient.

    Args:
        images, texts: ``[B, bits]`` codes.
        memory: before.
        index: ``[B]`` rows of the batch.
        momentum: delta, the share of the old row that stays.
        unit: normalise the means and the moved rows (released); False = neither (paper, Eq. 5).
        valid: ``[B]`` bool or None; rows of the others stay.
    """
    rows, fresh = memory[index], ((images + texts) / 2).detach()
    fresh = F.normalize(fresh, dim=1) if unit else fresh
    moved = momentum * rows + (1 - momentum) * fresh
    moved = F.normalize(moved, dim=1) if unit else moved
    if valid is not None:
        moved = torch.where(valid[:, None], moved, rows)
    return memory.scatter(0, index[:, None].expand_as(moved), moved)


def ranking_loss(
    images: Tensor, texts: Tensor, margin: float, shift: float, kappa: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Cross-modal ranking loss of every pair, row and column of S, ``[B]``; its mean is ``L_r`` (3.2; Eq. 14).

    The own pair stays in the sums; the choice of what is shifted has no gradient; pairs that are not ``valid`` are no negatives.
    """
    similarity = images @ texts.mT
    return _one_direction(similarity, margin, shift, kappa, valid) + _one_direction(
        similarity.mT, margin, shift, kappa, valid
    )


def _one_direction(similarity: Tensor, margin: float, shift: float, kappa: float, valid: Tensor | None) -> Tensor:
    own = similarity.diagonal()
    close = (similarity >= own[:, None] - margin).detach()
    costs = torch.where(close, similarity, similarity - shift) / kappa
    if valid is not None:
        eye = torch.eye(len(costs), dtype=torch.bool, device=costs.device)
        costs = torch.where(valid | eye, costs, torch.finfo(costs.dtype).min / 4)
    return kappa * costs.logsumexp(1) - own + margin

"""``ucch``: Unsupervised Contrastive Cross-modal Hashing (specs/ucch.md), the label-free reference line of label-noise tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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

    With unit codes ``h^x, h^y``, a memory row ``V_i`` per item and drawn indices ``j`` (3.1, 3.2)::

        L_c = sum_m mean_i -log softmax_0( sign(V_j) . h_i^m / (t sqrt(bits)) ),  column 0 = own item
        C^r_ij = S_ij if S_ij >= S_ii - m else S_ij - s,     S = h^x h^yT
        L_r = mean_i [log sum_j exp C^r_ij - S_ii + m] + the same over columns
        L   = beta L_c + (1 - beta) L_r                                                   (3.3)

    After each step ``V_i <- normalise(delta V_i + (1-delta) normalise((h^x + h^y)/2))``. In the first epoch the keys are those of the batch
    itself. Labels are never seen. The heads are those of the task, with a bias in the last layer.
    """

    @dataclass(frozen=True)
    class Params:
        keys: int = 4096  # K, drawn with replacement from all items, the own one included; paper, config
        temperature: float = 0.9  # t; paper
        momentum: float = 0.4  # delta of the memory; paper
        margin: float = 0.2  # m; paper
        shift: float = 1.0  # s; config default; README for MIRFlickr 0.1
        kappa: float = 1.0  # of the log-sum-exp; src/utils.py
        beta: float = 0.9  # weight of L_c (--alpha); config default; README for MIRFlickr 0.7
        warmup_epochs: int = 1  # epochs with the keys of the batch; NCEAverage.py; paper: none
        unit_memory: bool = True  # the memory and what enters it are normalised; NCEAverage.py; paper Eq. 5: not

    label = "UCCH"
    reference = "P. Hu et al., Unsupervised Contrastive Cross-modal Hashing, TPAMI 2023; github.com/penghu-cs/UCCH"
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
        Difference("validation", "2000 random items of the database", "its first 2000, training items with labels; ours: validation", "ucch.md section 7"),
        Difference("training set", "all items that are no queries", "the same; ours: the protocol's training items", "ucch.md section 4"),
    )  # fmt: skip
    recipe = Budget(
        epochs=20,
        batch_size=256,
        optimizer=Optimizer(
            "adam", 1e-4, (0.9, 0.999), 1e-8, decay=1e-6, decay_on="all", clip_norm=1.0, schedule=Schedule("step", lag=1)
        ),
    )

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": hashing_towers(self.spec, bias=True)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """The memory, rows of normalised signs that lean to -1 as released (3.1), and the key of the draws."""
        bits, device = self.spec.bits, train.images.device
        sigma = math.sqrt(3 / bits)
        signs = (2 * sigma * run.generator("memory").standard_normal((train.n_pairs, bits)) - sigma > 0) * 2.0 - 1
        return {
            "memory": torch.as_tensor(signs / math.sqrt(bits)).to(train.images),
            "key": draws.new_key(run.generator("keys")).to(device),
            "step": torch.zeros((), dtype=torch.int64, device=device),
        }

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        warm_up = epoch < self.warmup_epochs(self.params.warmup_epochs)
        return [Pass({"all": self.spec.batch_size}, (Update("warm-up" if warm_up else "train"),))]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, params = batch["all"], self.params
        images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
        if update == "warm-up":
            logits = [batch_logits(h, images, texts, self._scale) for h in (images, texts)]
        else:
            index = self.drawn_keys(items, state)
            logits = [memory_logits(h, state["memory"], index, self._scale) for h in (images, texts)]
        contrastive = sum(-one.log_softmax(1)[:, 0].mean() for one in logits)
        ranking = ranking_loss(images, texts, params.margin, params.shift, params.kappa)
        parts = {"contrastive": params.beta * contrastive, "ranking": (1 - params.beta) * ranking}
        memory = self._remembered(images, texts, items, state["memory"], 0.0 if update == "warm-up" else params.momentum)
        return StepOutput(parts, state={"memory": memory, "step": state["step"] + 1})

    @property
    def _scale(self) -> float:
        """``t sqrt(bits)``: the temperature for keys that are not of unit length."""
        return self.params.temperature * math.sqrt(self.spec.bits)

    def drawn_keys(self, items: Batch, state: State) -> Tensor:
        """``[B, 1 + K]`` items: the own one, and K drawn with replacement."""
        shape = (len(items.index), self.params.keys)
        return torch.cat([items.index[:, None], draws.integers(state["key"], state["step"], self.spec.n_pairs, shape)], 1)

    def _remembered(self, images: Tensor, texts: Tensor, items: Batch, memory: Tensor, momentum: float) -> Tensor:
        return remembered(images, texts, memory, items.index, momentum, self.params.unit_memory)


def memory_logits(h: Tensor, memory: Tensor, index: Tensor, scale: float) -> Tensor:
    """``sign(V_j) . h / scale`` for the drawn ``index [B, 1+K]``, ``[B, 1+K]`` (3.1); no gradient to the memory."""
    return (h @ memory.detach().sign().mT).gather(1, index) / scale


def batch_logits(h: Tensor, images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """The same with the keys ``sign((h^x + h^y)/2)`` of the batch: own pair first, then the other B - 1, ``[B, B]`` (3.1, warm-up)."""
    keys = ((images + texts) / 2).detach().sign()
    size = len(h)
    others = torch.arange(size - 1, device=h.device).expand(size, size - 1)
    own = torch.arange(size, device=h.device)[:, None]
    order = torch.cat([own, others + (others >= own).long()], 1)
    return (h @ keys.mT).gather(1, order) / scale


def remembered(images: Tensor, texts: Tensor, memory: Tensor, index: Tensor, momentum: float, unit: bool = True) -> Tensor:
    """The memory ``[n, bits]`` with the batch's rows moved to the mean of both codes (3.1); without gradient."""
    fresh = ((images + texts) / 2).detach()
    rows = memory[index]
    if unit:
        moved = F.normalize(momentum * rows + (1 - momentum) * F.normalize(fresh, dim=1), dim=1)
    else:
        moved = momentum * rows + (1 - momentum) * fresh
    return memory.scatter(0, index[:, None].expand_as(moved), moved)


def ranking_loss(images: Tensor, texts: Tensor, margin: float, shift: float, kappa: float = 1.0) -> Tensor:
    """Cross-modal ranking loss ``L_r`` of 3.2 (Eq. 14), scalar; the diagonal stays in the sums, no gradient through the choice."""
    similarity = images @ texts.mT
    own = similarity.diagonal()

    def one(scores: Tensor) -> Tensor:
        kept = (scores >= own[:, None] - margin).detach()
        costs = torch.where(kept, scores, scores - shift)
        return (kappa * (costs / kappa).logsumexp(1) - own + margin).mean()

    return one(similarity) + one(similarity.mT)

"""``cmmq``: Mutual Quantization for Cross-Modal Search with Noisy Labels (specs/cmmq.md), a reconstruction: there is no official code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.types import TrainView
from .contract import Batch, Budget, GradientMethod, Networks, Partition, Pass, Reinit, Run, State, StepOutput, Update
from .hashing_towers import hashing_towers
from .label_losses import label_cross_entropy
from .optim import Optimizer, Schedule
from .registry import register

SMALLEST_SHARE = 1e-6


@register
class Cmmq(GradientMethod):
    """Both modalities are pulled to fixed binary class proxies, and only items of small joint loss count.

    With codes ``u, v = tanh(.)`` and proxies ``P`` from a Hadamard matrix (3.1)::

        l_PC(f_i) = -(1/|Y_i|) sum_(k in Y_i) log softmax_k( cos(f_i, P_k) / t )           (3.2, our form)
        l_MQ,i    = mean_k [KL(p^u_ik || p^v_ik) + KL(p^v_ik || p^u_ik)],  p = (1 + f)/2    (3.3)
        l_i       = (1 - lambda) (l_PC(u_i) + l_PC(v_i)) + lambda l_MQ,i                    (3.4)

    Each batch keeps the ``ceil(R(t) B)`` smallest, ``R(t) = 1 - rho min(t / T_k, 1)``; rho is the known noise rate. The full text of the paper was
    not available: forms marked [O] and [J] in the specification are choices of this suite.
    """

    @dataclass(frozen=True)
    class Params:
        temperature: float = 0.3  # t of the proxy softmax; suite's choice, cmmq.md 3.2
        mutual: float = 0.5  # lambda; suite's choice, cmmq.md 3.4; 0 is the paper's ablation
        ramp_share: float = 0.1  # T_k as a share of the epochs; suite's choice, 10 of 100, cmmq.md 3.4
        scope: str = "batch"  # or "epoch": among which items the smallest are kept; cmmq.md 3.4, uncertain
        mutual_on: str = "bits"  # or "proxies": of which distributions the divergence is taken; cmmq.md 3.3, uncertain

    label = "CMMQ (reconstruction; no official code)"
    reference = "E. Yang et al., Mutual Quantization for Cross-Modal Search with Noisy Labels, CVPR 2022"
    spec_page = "cmmq.md"
    task = "label-hashing"
    flags = frozenset({"reconstruction"})
    needs = frozenset({"noise-rate"})
    variants = {
        "paper": Params(),
        "no-mutual": Params(mutual=0.0),
        "select-epoch": Params(scope="epoch"),
        "mutual-on-proxies": Params(mutual_on="proxies"),
    }
    recipe = Budget(
        epochs=100,
        batch_size=128,
        optimizer=Optimizer("adam", 1e-4, (0.9, 0.999), 1e-8, decay=1e-5, decay_on="all", schedule=Schedule("cosine")),
    )

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": hashing_towers(self.spec, unit=False)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Proxies, the known rate, today's share to keep, and which items an epoch keeps (scope ``epoch``)."""
        proxies = class_proxies(self.spec.n_classes, self.spec.bits, run.generator("proxies"))
        ones = train.images.new_ones(train.n_pairs)
        rate = ones.new_tensor(run.noise_rate or 0.0)
        return {"proxies": torch.as_tensor(proxies).to(ones), "rate": rate, "share": ones.new_ones(()), "kept": ones}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [Pass({"all": self.spec.batch_size}, (Update("train"),), last_batch="keep")]

    def observes(self, epoch: int) -> bool:
        return self.params.scope == "epoch" and epoch > 0

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        return {"loss": self.per_item(nets["net"].images(batch.images), nets["net"].texts(batch.texts), batch, state)}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """The share of items to keep in this epoch, and, if asked so, the items."""
        ramp = max(1, round(self.params.ramp_share * self.spec.epochs))
        share = 1 - float(state["rate"]) * min(epoch / ramp, 1)
        changes = {"share": torch.full_like(state["share"], share)}
        if signals:
            changes["kept"] = smallest(signals["loss"], changes["share"]).to(state["kept"].dtype)
        return Partition(state=changes, facts={"kept_share": share, "known_rate": float(state["rate"])})

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items = batch["all"]
        losses = self.per_item(nets["net"].images(items.images), nets["net"].texts(items.texts), items, state)
        if self.params.scope == "batch":
            kept = smallest(losses.detach(), state["share"], items.valid).to(losses.dtype)
        else:
            kept = state["kept"][items.index]
            kept = kept if items.valid is None else torch.where(items.valid, kept, 0.0)
        return StepOutput({"joint": (kept * losses).sum() / kept.sum().clamp(min=1)}, kept, losses)

    def per_item(self, u: Tensor, v: Tensor, items: Batch, state: State) -> Tensor:
        """``l_i`` of 3.4, ``[B]``; the proxy part is 0 for items without labels."""
        assert items.labels is not None
        assert items.text_labels is not None
        logits = [proxy_similarity(f, state["proxies"]) / self.params.temperature for f in (u, v)]
        pull = label_cross_entropy(logits[0], items.labels) + label_cross_entropy(logits[1], items.text_labels)
        if self.params.mutual_on == "bits":
            agree = mutual_quantisation(u, v)
        else:
            p, q = (one.log_softmax(1) for one in logits)
            agree = ((p.exp() - q.exp()) * (p - q)).sum(1)
        return (1 - self.params.mutual) * pull + self.params.mutual * agree


def class_proxies(n_classes: int, bits: int, random: np.random.Generator) -> np.ndarray:
    """``[K, bits]`` of -1 and +1 (3.1): rows of a Hadamard matrix and its negative without the constant ones, where bits are a power of two
    and there are enough; else fair coins, drawn again until the mean distance of two rows is within 5 % of half the bits."""
    hadamard = np.ones((1, 1))
    while len(hadamard) < bits:
        hadamard = np.kron(hadamard, np.array([[1, 1], [1, -1]]))
    rows = np.concatenate([hadamard[1:], -hadamard[1:]])
    if len(hadamard) == bits and n_classes <= len(rows):
        return rows[:n_classes]
    while True:
        drawn = random.integers(0, 2, (n_classes, bits)) * 2.0 - 1
        distances = (bits - drawn @ drawn.T)[np.triu_indices(n_classes, 1)] / 2
        if n_classes < 2 or abs(distances.mean() - bits / 2) <= 0.05 * bits / 2:
            return drawn


def proxy_similarity(codes: Tensor, proxies: Tensor) -> Tensor:
    """Cosine of codes and proxies, ``[B, K]`` (3.2)."""
    return F.normalize(codes, dim=1) @ proxies.mT / math.sqrt(proxies.shape[1])


def mutual_quantisation(u: Tensor, v: Tensor) -> Tensor:
    """Symmetric KL divergence of the two modalities' bits, mean over bits, ``[B]`` (3.3, closed form)."""
    p, q = (((1 + f) / 2).clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE) for f in (u, v))
    return ((p - q) * (p.logit() - q.logit())).mean(1)


def smallest(losses: Tensor, share: Tensor, valid: Tensor | None = None) -> Tensor:
    """The ``ceil(share B)`` smallest of ``[B]`` losses as a mask, ties by place; items that are not valid are never kept."""
    count = torch.tensor(len(losses), device=losses.device) if valid is None else valid.sum()
    ranked = losses if valid is None else torch.where(valid, losses, torch.finfo(losses.dtype).max)
    place = ranked.argsort(stable=True).argsort(stable=True)
    # A share such as 1 - 0.2 carries rounding, which must not keep one item more.
    kept = place < torch.ceil(share * count - 1e-4)
    return kept if valid is None else kept & valid

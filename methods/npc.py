"""``npc``: Negative Pre-aware Cross-modal matching (specs/npc.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..datasets.types import TrainView
from .backbones import towers
from .contract import (
    Batch,
    BoundNetwork,
    Difference,
    GradientMethod,
    Networks,
    Partition,
    Pass,
    Reinit,
    Run,
    State,
    StepOutput,
    plain_pass,
)
from .losses import info_nce
from .memory_bank import bank_losses, look_ahead, look_ahead_weight, nearest_clean_pairs, trusted_set
from .optim import Optimizer, Schedule
from .partition import gaussian_mixture_1d, separation_ratio
from .registry import register


@register
class Npc(GradientMethod):
    """Weigh a pair by whether learning from its batch helps on trusted pairs that resemble it.

    A memory bank names, for every pair, trusted pairs near its image and near its text (3.1). In every iteration a copy of the model takes
    one step on the batch (3.2); the ratio of the bank losses before and after becomes the pair's weight (3.3); the model itself then learns
    from the weighted batch and from the bank (3.4)::

        r_i = (b0I_i / b1I_i + b0T_i / b1T_i) / 2,    w_i = 1 if r_i >= 1 else tanh(r_i)
        paper:     L = mean_i w_i l_i + mean_i (lI_i + lT_i)
        released:  L = mean_i(w_i) * mean_i l_i

    With heads that start at random the bank is built after a few epochs of plain InfoNCE; with the residual adapter, which starts at the
    zero-shot similarity, before the first (spec section 5).
    """

    @dataclass(frozen=True)
    class Params:
        weight_scope: str = "sample"  # what w multiplies: each pair's loss, or ("batch") the mean; npc.md 3.4, 7.1
        bank_gradient: bool = True  # the bank loss trains the model; released: False, npc.md 7.2
        weighting: bool = True  # False: w = 1, the ablation "bank gradient only" of npc.md section 7
        normalise_bank: bool = True  # cosine on both sides of the nearest neighbour; released: False, npc.md 7.6
        clean_threshold: float = 0.9  # strict clean set C; released value, npc.md 3.1.3
        warmup_epochs: int = 3  # plain InfoNCE before the bank; suite, npc.md section 5 (1-5); 0 for residual_adapter
        clip_norm: float = 10.0  # gradient norm of the base model; npc.md section 4
        decay_on: str = "matrices"  # suite, clip.md section 5; released: "all", npc.md 7.14
        clamped: bool = True  # logit_scale <= log 100; released: False, npc.md 7.14
        schedule: str = "cosine"  # in iterations; released: "cosine-in-samples", npc.md 7.8
        look_ahead_scale: float = 1.0  # factor of the look-ahead gradient; released: 4, npc.md 7.4
        guard_ratio: float = 0.0  # below it "no noise found", all pairs trusted; 0 = off; suite, hana.md 3.2(4)

    label = "NPC"
    reference = "X. Zhang, H. Li, M. Ye, Negative Pre-aware for Noisy Cross-Modal Matching, AAAI 2024; github.com/ZhangXu0963/NPC"
    spec_page = "npc.md"
    variants = {
        "paper": Params(),
        "released": Params(
            weight_scope="batch", bank_gradient=False, normalise_bank=False, decay_on="all", clamped=False,
            schedule="cosine-in-samples", look_ahead_scale=4.0,
        ),
        "weight_only": Params(bank_gradient=False),
        "bank_only": Params(weighting=False),
        "guard": Params(guard_ratio=0.25),
    }  # fmt: skip
    differences = (
        Difference(
            "sample weights", "multiply each pair's loss", "multiply the batch mean: only mean(w) acts", "npc.md 7.1"
        ),
        Difference("bank loss", "trains the model", "computed without gradient: a constant", "npc.md 7.2"),
        Difference(
            "look-ahead gradient", "of l", "4 times that (sum of both directions, two backward calls)", "npc.md 7.4"
        ),
        Difference("nearest neighbour", "cosine", "bank side not normalised", "npc.md 7.6"),
        Difference("learning-rate schedule", "cosine in iterations", "counts samples", "npc.md 7.8"),
        Difference("weight decay, logit_scale", "matrices only, clamped", "all parameters, not clamped", "npc.md 7.14"),
        Difference("precision", "float32", "pure float16 weights and optimiser (not reproduced here)", "npc.md 7.7"),
    )

    @property
    def warmup(self) -> int:
        """Epochs of plain InfoNCE before the bank is built; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs, pretrained=0)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec, clamped=self.params.clamped)}

    def optimizers(self) -> Mapping[str, Optimizer]:
        base = self.spec.budget.optimizer
        schedule = base.schedule if self.params.schedule == "cosine" else Schedule(self.params.schedule)
        return {"net": replace(base, decay_on=self.params.decay_on, schedule=schedule, clip_norm=self.params.clip_norm)}

    def state(self, train: TrainView, nets: Networks, run: Run) -> State:
        """Bank positions, and the moments of the look-ahead optimiser, which persist (spec 3.2.3)."""
        positions = torch.arange(train.n_pairs, device=train.captions.device)
        ahead = replace(self.optimizers()["net"], clip_norm=None)
        return {
            "bank_of_image": positions,
            "bank_of_text": positions.clone(),
            "clean_probability": torch.ones(train.n_pairs, device=positions.device, dtype=train.captions.dtype),
            "ahead": ahead.start(nets["net"].params),
            "ahead_count": torch.zeros((), dtype=torch.int64, device=positions.device),
        }

    def observes(self, epoch: int) -> bool:
        return epoch == self.warmup

    def signals(self, nets: Networks, batch: Batch, state: State, epoch: int) -> Mapping[str, Tensor]:
        """Losses, and for the guard those of deliberately mismatched pairs: text i + 1 in place of text i (hana.md 3.2(4))."""
        logits = nets["net"].logits(batch.images, batch.texts)
        return {"loss": info_nce(logits), "mismatched": info_nce(logits.roll(-1, dims=1))}

    def partition(
        self, nets: Networks, train: TrainView, signals: Mapping[str, Tensor], state: State, epoch: int
    ) -> Partition:
        """Build the bank, once (spec 3.1): mixture on the raw losses, strict clean set, nearest neighbours."""
        if not self.observes(epoch):
            return Partition(clean_probability={"net": state["clean_probability"]} if epoch > self.warmup else {})
        posterior = gaussian_mixture_1d(signals["loss"], max_iter=100, tol=1e-2, reg_covar=5e-4).posterior_low
        facts = {"guard_ratio": separation_ratio(signals["loss"], posterior, signals["mismatched"])}
        if facts["guard_ratio"] < self.params.guard_ratio:
            posterior = torch.ones_like(posterior)
        clean = trusted_set(posterior, self.params.clean_threshold, at_least=1)
        image, text = nearest_clean_pairs(nets["net"], train, clean, self.params.normalise_bank)
        probability = posterior.to(train.captions.dtype)
        changes = {"bank_of_image": image, "bank_of_text": text, "clean_probability": probability}
        return Partition({}, changes, {"net": probability}, facts | {"bank_share": float(clean.double().mean())})

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size, "warm up" if epoch < self.warmup else "train")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs, net = batch["all"], nets["net"]
        losses = info_nce(net.logits(pairs.images, pairs.texts), pairs.valid)
        if update == "warm up":
            return StepOutput({"contrastive": pairs.mean(losses)}, sample_loss=losses)
        weight, changes = self._weigh(net, pairs, state)
        if self.params.weight_scope == "sample":
            parts = {"weighted": pairs.mean(weight * losses)}
        else:
            parts = {"weighted": pairs.mean(weight) * pairs.mean(losses)}
        if self.params.bank_gradient:
            image_side, text_side = bank_losses(net, net.params, pairs, state["bank_of_image"], state["bank_of_text"])
            parts["bank"] = pairs.mean(image_side + text_side)
        return StepOutput(parts, weight, losses, changes)

    def _weigh(self, net: BoundNetwork, pairs: Batch, state: State) -> tuple[Tensor, dict[str, Any]]:
        """The look-ahead step and the weight that follows from it (spec 3.2, 3.3)."""
        if not self.params.weighting:
            return torch.ones_like(pairs.index, dtype=pairs.images.dtype), {}
        bank = (state["bank_of_image"], state["bank_of_text"])
        return look_ahead_weight(net, pairs, bank, lambda here: self.look_ahead(net, here, pairs, state), state)

    def look_ahead(
        self, net: BoundNetwork, here: Mapping[str, Tensor], pairs: Batch, state: State
    ) -> tuple[Mapping[str, Tensor], Any]:
        """One optimiser step of the copy on the plain batch loss, noisy pairs included (spec 3.2.3)."""
        return look_ahead(net, here, pairs, self.optimizers()["net"], state, self.params.look_ahead_scale)

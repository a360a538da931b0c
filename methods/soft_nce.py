"""``soft_nce``: InfoNCE weighted by its own value (specs/hana.md 6.5, specs/controls.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbones import towers
from .contract import Batch, GradientMethod, Networks, Pass, Reinit, State, StepOutput, plain_pass
from .losses import info_nce
from .registry import register


@register
class SoftNce(GradientMethod):
    """After a warm-up each pair counts with the likelihood the model gives it: no mixture, bank, momentum or second network.

    ``w_i = exp(-sg(l_i) / T)``, ``L = sum_i w_i l_i / (sum_i w_i + 1e-6)`` (hana.md 6.5). With T = 0.5 the weight is the square of the
    geometric mean of the pair's two matching probabilities.
    """

    @dataclass(frozen=True)
    class Params:
        temperature: float = 0.5  # T, in units of the loss; hana.md 6.5
        warmup_epochs: int = 3  # plain InfoNCE; hana.md section 4; 0 for residual_adapter

    label = "Soft-NCE (control)"
    reference = "control of this suite (three lines on top of InfoNCE)"
    spec_page = "hana.md 6.5; controls.md"
    flags = frozenset({"control"})
    variants = {"paper": Params(), "temperature_1": Params(temperature=1.0)}

    @property
    def warmup(self) -> int:
        """Epochs of plain InfoNCE; at least one epoch is left for the method itself."""
        return self.warmup_epochs(self.params.warmup_epochs, pretrained=0)

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size, "warm up" if epoch < self.warmup else "train")]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs = batch["all"]
        losses = info_nce(nets["net"].logits(pairs.images, pairs.texts), pairs.valid)
        if update == "warm up":
            return StepOutput({"contrastive": pairs.mean(losses)}, sample_loss=losses)
        weight = likelihood_weight(losses, self.params.temperature)
        return StepOutput(
            {"weighted": pairs.sum(weight * losses) / (pairs.sum(weight) + 1e-6)}, weight=weight, sample_loss=losses
        )


def likelihood_weight(losses: Tensor, temperature: float) -> Tensor:
    """``exp(-sg(l) / T)``, ``[B]`` in [0, 1]; a loss rounded to just below 0 counts as 0."""
    return torch.exp(-losses.detach().clamp(min=0) / temperature)

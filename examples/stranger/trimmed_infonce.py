"""Trimmed InfoNCE: the pairs of a batch with the largest losses are probably mismatched, so they do not count."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from nocobench.methods.backbones import towers
from nocobench.methods.contract import Batch, GradientMethod, Networks, State, StepOutput
from nocobench.methods.losses import info_nce
from nocobench.methods.registry import register
from torch import nn


@register  # the file's name is the method's name: trimmed_infonce
class TrimmedInfoNce(GradientMethod):
    """``loss = sum_i w_i l_i / sum_i w_i``, ``w_i = 1`` for the ``kept`` share of the batch with the smallest ``l_i``, else 0."""

    @dataclass(frozen=True)
    class Params:
        kept: float = 0.8  # share of each batch that counts; this example's choice

    label = "Trimmed InfoNCE (example)"
    reference = "an example, not a published method"
    variants = {"default": Params(), "strict": Params(kept=0.5)}

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec)}

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs = batch["all"]
        losses = info_nce(nets["net"].logits(pairs.images, pairs.texts), pairs.valid)  # [B]
        # Fill-up pairs of a last batch go to the end of the order, and do not enlarge the share.
        ordered = losses.detach() if pairs.valid is None else losses.detach().masked_fill(~pairs.valid, torch.inf)
        rank = ordered.argsort().argsort()  # [B], 0 = smallest loss
        weight = (rank < self.params.kept * pairs.sum(torch.ones_like(losses))).to(losses.dtype)
        trimmed = pairs.sum(weight * losses) / pairs.sum(weight).clamp(min=1)
        return StepOutput({"trimmed": trimmed}, weight=weight, sample_loss=losses)

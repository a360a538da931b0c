"""``vse``: triplet ranking loss on cosines, noise-blind control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from .backbones import towers
from .contract import Batch, GradientMethod, Networks, State, StepOutput
from .losses import hardest_hinge, hinge_matrices
from .registry import register


@register
class Vse(GradientMethod):
    """The hinge-based triplet loss of VSE++, with the hardest negative of the batch or the sum over all negatives.

    ``l_i = max_j c1_ij + max_j c2_ji`` or ``sum_j c1_ij + sum_j c2_ji`` with margin 0.2 on plain cosines (hinges of ncr.md section 2).
    Hardest negatives are known to collapse under mismatched pairs, which is why the row belongs in every table.
    """

    @dataclass(frozen=True)
    class Params:
        margin: float = 0.2  # VSE++; ncr.md section 2
        negatives: str = "hardest"  # or "sum"

    label = "VSE++ (triplet)"
    reference = "F. Faghri et al., VSE++: Improving Visual-Semantic Embeddings with Hard Negatives, BMVC 2018"
    spec_page = "ncr.md sections 2 and 3.5"
    flags = frozenset({"control"})
    variants = {"paper": Params(), "sum": Params(negatives="sum")}

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec, scaled=False)}

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs, margin = batch["all"], self.params.margin
        similarity = nets["net"].similarity(pairs.images, pairs.texts)
        if self.params.negatives == "hardest":
            losses = hardest_hinge(similarity, margin, margin, pairs.valid)
        else:
            image_asks, text_asks = hinge_matrices(similarity, margin, margin, pairs.valid)
            losses = image_asks.sum(1) + text_asks.sum(0)
        return StepOutput({"triplet": pairs.mean(losses)}, sample_loss=losses)

"""``lc``: label-free contrastive hashing, the control that supervised methods must beat under label noise (specs/controls.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from .contract import Batch, GradientMethod, Networks, Pass, Reinit, State, StepOutput, plain_pass
from .hashing_towers import hashing_towers
from .label_losses import contrastive_hashing
from .registry import register


@register
class LabelFreeContrastive(GradientMethod):
    """Each code picks its counterpart of the other modality among all codes of the batch, ``L_C`` of rshnl.md 3.1; labels are never seen.

    Its score is the same at every rate of label noise.
    """

    @dataclass(frozen=True)
    class Params:
        tau: float = 0.3  # temperature; suite's choice between 1 (RSHNL) and 0.07 (InfoNCE, real-valued embeddings)
        r: float = 0.01  # shape of the loss, close to cross-entropy; RSHNL main.py

    label = "label-free contrastive hashing"
    reference = "control of this suite: the contrastive term of R. Pu et al., AAAI 2025"
    spec_page = "controls.md; rshnl.md 3.1"
    task = "label-hashing"
    flags = frozenset({"control"})
    variants = {"paper": Params(), "tau-1": Params(tau=1.0)}

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": hashing_towers(self.spec)}

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        return [plain_pass(self.spec.batch_size)]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, params = batch["all"], self.params
        images, texts = nets["net"].images(items.images), nets["net"].texts(items.texts)
        losses = contrastive_hashing(images, texts, params.tau, params.r, items.valid)
        return StepOutput({"contrastive": items.mean(losses)}, sample_loss=losses)

"""``clip_zeroshot``: the given features compared as they are, without any training."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..datasets.types import TrainView
from .contract import DirectMethod, Encoder, Run, Spec
from .registry import register


class UnitFeatures(Encoder):
    """The features themselves, L2-normalised."""

    def images(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    def texts(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)


@register
class ClipZeroShot(DirectMethod):
    """Cosine of precomputed image and text features; fine-tuning at high noise falls below it (clip.md section 1, controls.md)."""

    @dataclass(frozen=True)
    class Params:
        """Nothing to choose."""

    label = "CLIP zero-shot"
    reference = "A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    spec_page = "clip.md section 1; controls.md"
    flags = frozenset({"control"})
    variants = {"paper": Params()}

    def applies_to(self, spec: Spec) -> str | None:
        if not spec.shared_space:
            return "image and text features do not share a space, so their cosine means nothing"
        return super().applies_to(spec)

    def fit(self, train: TrainView, run: Run) -> Encoder:
        return UnitFeatures()

"""Noise-blind controls that train on every pair alike: ``clip`` (symmetric InfoNCE) and ``clip_plus_meta``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from .backbones import towers
from .contract import Batch, Difference, GradientMethod, Networks, Pass, Reinit, State, StepOutput, Update
from .losses import info_nce
from .optim import Optimizer, Schedule
from .registry import register


@register
class Clip(GradientMethod):
    """Fine-tuning with the symmetric InfoNCE loss; no robustness mechanism, the lower bound of every table.

    ``loss = mean_i l_i`` with ``l_i = (CE(L[i, :], i) + CE(L[:, i], i)) / 2`` and ``L = s U V^T`` (clip.md section 3). Only the diagonal is
    positive: other captions of the same image in the batch are negatives.
    """

    @dataclass(frozen=True)
    class Params:
        decay_on: str = "matrices"  # suite, clip.md section 5; released: "all"
        clamped: bool = True  # logit_scale <= log 100 after each step; suite, clip.md 5.3; released: False
        schedule: str = "cosine"  # in iterations; released: "cosine-in-samples", clip.md 7.3

    label = "CLIP (InfoNCE)"
    reference = (
        "A. Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; "
        "baseline as in github.com/ZhangXu0963/NPC main_CLIP.py"
    )
    spec_page = "clip.md"
    flags = frozenset({"control"})
    variants = {"paper": Params(), "released": Params(decay_on="all", clamped=False, schedule="cosine-in-samples")}
    differences: ClassVar[Sequence[Difference]] = (
        Difference("learning-rate schedule", "cosine in iterations, ends at 0", "counts samples: jumps between epochs", "clip.md 7.3"),
        Difference("weight decay", "weight matrices only", "every parameter, logit_scale too", "clip.md section 4"),
        Difference("logit_scale", "at most log 100", "not clamped", "clip.md section 4"),
    )  # fmt: skip

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": towers(self.spec, clamped=self.params.clamped)}

    def optimizers(self) -> Mapping[str, Optimizer]:
        base = self.spec.budget.optimizer
        schedule = base.schedule if self.params.schedule == "cosine" else Schedule(self.params.schedule)
        return {"net": replace(base, decay_on=self.params.decay_on, schedule=schedule)}

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        pairs = batch["all"]
        losses = info_nce(nets["net"].logits(pairs.images, pairs.texts), pairs.valid)
        return StepOutput({"contrastive": pairs.mean(losses)}, sample_loss=losses)


@register(name="clip_plus_meta")
class ClipPlusMeta(Clip):
    """``clip`` with the verified pairs simply added: each step also sees a batch of them, with weight 1 (msian.md section 5).

    Without this row the extra clean data would be credited to the weights of meta-learning methods.
    """

    @dataclass(frozen=True)
    class Params(Clip.Params):
        meta_batch_size: int = 64  # verified pairs per step; msian.md section 5

    label = "CLIP + clean meta pairs"
    spec_page = "msian.md section 5; controls.md"
    flags = frozenset({"control", "clean-meta-set"})
    needs = frozenset({"clean-meta-set"})
    variants = {"paper": Params()}
    differences = ()

    def passes(self, epoch: int) -> Sequence[Pass | Reinit]:
        draws = {"all": self.spec.batch_size, "meta": min(self.params.meta_batch_size, self.spec.n_meta_images)}
        return [Pass(draws, (Update("train"),))]

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        noisy = super().loss(nets, batch, state, update)
        meta = batch["meta"]
        verified = meta.mean(info_nce(nets["net"].logits(meta.images, meta.texts), meta.valid))
        return StepOutput(dict(noisy.loss) | {"verified": verified}, sample_loss=noisy.sample_loss)

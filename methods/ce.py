"""``ce``: plain cross-entropy on the given labels, the noise-blind control of label-based retrieval (specs/controls.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contract import Batch, GradientMethod, Networks, Spec, State, StepOutput
from .hashing_towers import HashingTowers, hidden_width
from .label_losses import label_cross_entropy
from .registry import register


class ClassifierTowers(HashingTowers):
    """The heads of the task with one linear classifier that both modalities share, so that codes of one class meet."""

    def __init__(self, spec: Spec, initial_scale: float) -> None:
        super().__init__(spec.image_dim, spec.text_dim, hidden_width(spec), spec.bits)
        self.classifier = nn.Linear(spec.bits, spec.n_classes, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(initial_scale)))

    def class_logits(self, embeddings: Tensor) -> Tensor:
        """``s h W^T``, ``[B, n_classes]``."""
        return self.logit_scale.exp() * self.classifier(embeddings)


@register
class CrossEntropy(GradientMethod):
    """Every item pulls the codes of both modalities to the classifier row of its given labels, right or wrong.

    ``L = mean_i sum_m -(1/|Y_i|) sum_(k in Y_i) log softmax_k(s h_i^m W^T)`` with one ``W`` for both modalities and a learnt scale s; items
    without labels have no loss.
    """

    @dataclass(frozen=True)
    class Params:
        initial_scale: float = 1.0  # of s; suite: best of 1, 4, 14.3 by validation MAP on wikipedia-labels

    label = "CE (noise-blind)"
    reference = "control of this suite: cross-entropy heads"
    spec_page = "controls.md"
    task = "label-hashing"
    flags = frozenset({"control"})
    variants = {"paper": Params()}

    def networks(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {"net": lambda: ClassifierTowers(self.spec, self.params.initial_scale)}

    def loss(self, nets: Networks, batch: Mapping[str, Batch], state: State, update: str) -> StepOutput:
        items, net = batch["all"], nets["net"]
        assert items.labels is not None
        assert items.text_labels is not None
        of_images = label_cross_entropy(net.class_logits(net.images(items.images)), items.labels)
        of_texts = label_cross_entropy(net.class_logits(net.texts(items.texts)), items.text_labels)
        losses = of_images + of_texts
        return StepOutput({"cross_entropy": items.mean(losses)}, sample_loss=losses)

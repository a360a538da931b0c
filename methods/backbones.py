"""Trainable heads on precomputed features (specs/clip.md section 5), shared by all pair-noise methods.

``residual_adapter``: ``z = x + W2 GELU(W1 x + b1) + b2`` with ``W2 = 0, b2 = 0``, so that training starts exactly at the zero-shot
similarity; ``projection``: ``z = W x + b``; ``mlp``: Linear - GELU - Linear. Embeddings are L2-normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Backbone, Network, Spec

LARGEST_LOG_SCALE = math.log(100.0)


class ResidualAdapter(nn.Module):
    """``x + W2 GELU(W1 x)``, zero at the start (clip.md 5.1)."""

    def __init__(self, dim: int, hidden: int | None) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, hidden or dim)
        self.outer = nn.Linear(hidden or dim, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.gelu(self.inner(x)))


def _xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def head(backbone: Backbone, input_dim: int) -> nn.Module:
    """One modality's head.

    Raises:
        ValueError: for an unknown kind.
    """
    if backbone.kind == "residual_adapter":
        return ResidualAdapter(input_dim, backbone.hidden)
    if backbone.kind == "projection":
        return _xavier(nn.Linear(input_dim, backbone.dim))
    if backbone.kind == "mlp":
        hidden = backbone.hidden or input_dim
        return nn.Sequential(_xavier(nn.Linear(input_dim, hidden)), nn.GELU(), _xavier(nn.Linear(hidden, backbone.dim)))
    raise ValueError(f"unknown backbone {backbone.kind!r}; known: residual_adapter, projection, mlp")


class Towers(Network):
    """Two heads and a learnable logit scale: the embedding encoder of clip.md section 5 and ncr.md section 5B.

    Args:
        spec: dimensions and backbone.
        scaled: with the learnable ``logit_scale`` (InfoNCE losses); without it for hinge losses on plain cosines.
        clamped: keep ``logit_scale <= log 100`` after each step (the released code does not).
    """

    def __init__(self, spec: Spec, scaled: bool = True, clamped: bool = True) -> None:
        super().__init__()
        self.normalise_inputs = spec.backbone.normalise_inputs
        self.clamped = clamped
        self.image_head = head(spec.backbone, spec.image_dim)
        self.text_head = head(spec.backbone, spec.text_dim)
        if scaled:
            self.logit_scale = nn.Parameter(torch.tensor(math.log(spec.backbone.initial_scale)))

    def raw_images(self, x: Tensor) -> Tensor:
        """``[..., image_dim] -> [..., dim]`` before normalisation."""
        return self.image_head(F.normalize(x, dim=-1) if self.normalise_inputs else x)

    def raw_texts(self, x: Tensor) -> Tensor:
        """``[..., text_dim] -> [..., dim]`` before normalisation."""
        return self.text_head(F.normalize(x, dim=-1) if self.normalise_inputs else x)

    def images(self, x: Tensor) -> Tensor:
        """Unit embeddings of images."""
        return F.normalize(self.raw_images(x), dim=-1)

    def texts(self, x: Tensor) -> Tensor:
        """Unit embeddings of texts."""
        return F.normalize(self.raw_texts(x), dim=-1)

    def similarity(self, images: Tensor, texts: Tensor) -> Tensor:
        """Cosines ``[n_images, n_texts]``."""
        return self.images(images) @ self.texts(texts).mT

    def scale(self) -> Tensor:
        """``s = exp(logit_scale)``."""
        return self.logit_scale.exp()

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """``s * cosine``."""
        return self.scale() * self.similarity(images, texts)

    def constrain(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.clamped and "logit_scale" in params:
            params = params | {"logit_scale": params["logit_scale"].clamp(max=LARGEST_LOG_SCALE)}
        return params


def towers(spec: Spec, scaled: bool = True, clamped: bool = True) -> Callable[[], Towers]:
    """A factory of :class:`Towers`, as ``GradientMethod.networks`` wants it."""
    return lambda: Towers(spec, scaled, clamped)

"""``cca``: linear canonical correlation analysis in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.types import TrainView
from .contract import DirectMethod, Encoder, Run
from .registry import register


@dataclass(frozen=True)
class LinearEncoder(Encoder):
    """``normalise((x - mean) W)`` per modality."""

    image_mean: Tensor
    text_mean: Tensor
    image_map: Tensor
    text_map: Tensor

    def images(self, features: Tensor) -> Tensor:
        return self._project(features, self.image_mean, self.image_map)

    def texts(self, features: Tensor) -> Tensor:
        return self._project(features, self.text_mean, self.text_map)

    @staticmethod
    def _project(features: Tensor, mean: Tensor, projection: Tensor) -> Tensor:
        return F.normalize((features.to(mean.dtype) - mean) @ projection, dim=-1).to(features.dtype)

    def parameters(self) -> int:
        return sum(x.numel() for x in (self.image_mean, self.text_mean, self.image_map, self.text_map))


@register
class Cca(DirectMethod):
    """Ridge CCA on the given pairs, all training pairs alike; mismatched pairs only scale the cross-covariance, so it barely suffers.

    With covariances ``Cx, Cy`` (each + ``reg`` times its mean eigenvalue on the diagonal) and ``Cxy`` over the training pairs, the singular
    values ``rho`` of ``Cx^-1/2 Cxy Cy^-1/2 = U rho V^T`` are the canonical correlations; projections ``Cx^-1/2 U sqrt(rho)`` and
    ``Cy^-1/2 V sqrt(rho)``, compared by cosine.
    """

    @dataclass(frozen=True)
    class Params:
        reg: float = 0.05  # ridge, in units of the mean eigenvalue; suite, not tuned per data set
        dim: int = 128  # directions kept

    label = "CCA (linear)"
    reference = "H. Hotelling, Relations Between Two Sets of Variates, Biometrika 1936; ridge form"
    spec_page = "controls.md"
    flags = frozenset({"control"})
    variants = {"paper": Params(), "strong_ridge": Params(reg=0.5)}

    def fit(self, train: TrainView, run: Run) -> Encoder:
        images = train.images.double()[train.image_of_pair]
        texts = train.captions.double()
        image_mean, text_mean = images.mean(0), texts.mean(0)
        x, y = images - image_mean, texts - text_mean
        whiten_x, whiten_y = (_inverse_root(z.mT @ z / len(z), self.params.reg) for z in (x, y))
        left, correlation, right = torch.linalg.svd(whiten_x @ (x.mT @ y / len(x)) @ whiten_y, full_matrices=False)
        kept = slice(0, self.params.dim)
        scale = correlation[kept].sqrt()
        return LinearEncoder(
            image_mean, text_mean, whiten_x @ left[:, kept] * scale, whiten_y @ right.mT[:, kept] * scale
        )


def _inverse_root(covariance: Tensor, reg: float) -> Tensor:
    """``(C + reg * mean eigenvalue * I)^(-1/2)`` of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + reg * values.clamp(min=0).mean() + torch.finfo(values.dtype).eps
    return (vectors * values.rsqrt()) @ vectors.mT

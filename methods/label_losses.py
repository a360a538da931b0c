"""Equations that methods of label-based retrieval share: per-sample, tensor-only, for one run. Embeddings are unit rows ``[B, L]``."""

from __future__ import annotations

import torch
from torch import Tensor


def robust_shape(log_v: Tensor, r: float) -> Tensor:
    """``phi_r(v) = (1-r) (1 - v^r)/r + r (1 - v)`` (rshnl.md section 1), same shape as ``log_v``.

    Between cross-entropy ``-ln v`` (r = 0) and mean absolute error ``1 - v`` (r = 1); ``phi_r(1) = 0``, ``phi_r(0) = (r^2 - r + 1)/r``.

    Args:
        log_v: logarithms of probabilities; where they are tiny, value and gradient stay finite.
        r: in [0, 1].
    """
    if r == 0:
        return -log_v
    return -(1 - r) / r * torch.expm1(r * log_v) - r * torch.expm1(log_v)


def contrastive_hashing(
    images: Tensor, texts: Tensor, tau: float, r: float, valid: Tensor | None = None, with_self: bool = False
) -> Tensor:
    """Contrastive hashing loss of every pair, both directions, ``[B]`` (rshnl.md 3.1; Eq. 2-3 of the paper).

    Each of the 2B embeddings picks its counterpart among the other 2B - 1 of the batch, of both modalities: ``sum_m phi_r(p_(m,i))``. No
    labels.

    Args:
        images, texts: ``[B, L]`` unit rows.
        tau: temperature.
        r: of :func:`robust_shape`.
        valid: ``[B]`` bool or None; the others neither have a loss nor serve as negatives.
        with_self: the similarity of an embedding to itself stays in numerator and denominator (the paper's Eq. 2).
    """
    size = len(images)
    stacked = torch.cat([images, texts])
    logits = stacked @ stacked.mT / tau
    own = torch.eye(2 * size, dtype=torch.bool, device=logits.device)
    positives = own.roll(size, 1)
    compared = ~own
    if with_self:
        positives, compared = positives | own, compared | own
    if valid is not None:
        compared = compared & (valid.repeat(2) | positives)
    losses = robust_shape(_log_sum_exp(logits, positives) - _log_sum_exp(logits, compared), r)
    both = losses[:size] + losses[size:]
    return both if valid is None else torch.where(valid, both, 0.0)


def log_label_probability(embeddings: Tensor, centers: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """``log v``, ``v = sum_k y_k softmax_k(h . c_k / t)``, ``[B]`` (rshnl.md 3.2; Eq. 4-5).

    For a row without labels it is a huge negative number, of which :func:`robust_shape` with r > 0 makes ``phi_r(0)`` without gradient.

    Args:
        embeddings: ``[B, L]``.
        centers: ``[K, L]``, one row per class.
        labels: ``[B, K]`` of 0 and 1.
        temperature: t.
    """
    logits = embeddings @ centers.mT / temperature
    return _log_sum_exp(logits, labels > 0) - logits.logsumexp(1)


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-(1/|Y|) sum_(k in Y) log softmax_k``, ``[B]``; 0 for rows without labels. ``logits``, ``labels`` ``[B, K]``."""
    return -(labels * logits.log_softmax(1)).sum(1) / labels.sum(1).clamp(min=1)


def _log_sum_exp(logits: Tensor, counted: Tensor) -> Tensor:
    """Over the counted entries of each row."""
    # Finite, so that the gradient of a masked entry is 0 and not NaN.
    return logits.masked_fill(~counted, torch.finfo(logits.dtype).min / 4).logsumexp(1)

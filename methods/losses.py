"""Equations that several methods share: per-sample, tensor-only, for one run.

A batch is given by its similarity matrix ``[B, B]``: row = image, column = text, given pairs on the diagonal. ``valid`` marks the pairs
that count (None: all); the others neither have a loss nor serve as negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of every pair, ``l_i = (CE(L[i, :], i) + CE(L[:, i], i)) / 2`` (clip.md section 3; npc.md section 2).

    Args:
        logits: ``[B, B]`` scaled similarities.
        valid: ``[B]`` bool or None.

    Returns:
        ``[B]``, 0 where not valid.
    """
    rows, columns = match_log_probabilities(logits, valid)
    return _only_valid(-(rows + columns) / 2, valid)


def match_log_probabilities(logits: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[B]`` that image i picks its own text, and text i its own image (log p1_i, log p2_i of hana.md section 2)."""
    if valid is not None:
        keep = valid | torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        rows, columns = logits.masked_fill(~keep, _lowest(logits)), logits.masked_fill(~keep.mT, _lowest(logits))
    else:
        rows = columns = logits
    diagonal = logits.diagonal()
    return diagonal - rows.logsumexp(1), diagonal - columns.logsumexp(0)


def hinge_matrices(
    similarity: Tensor, margin_of_image: Tensor | float, margin_of_text: Tensor | float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Hinge of every (query, negative), zero on the diagonal (ncr.md section 2).

    ``c1_ij = [a + S_ij - S_ii]_+`` (image i asks, text j is the negative) and ``c2_ij = [a + S_ij - S_jj]_+`` (text j asks, image i is
    the negative). Margins broadcast against ``[B, B]``: a vector of query margins is ``a[:, None]`` for c1 and ``a[None, :]`` for c2.

    Returns:
        ``c1, c2``, both ``[B, B]`` indexed [image, text].
    """
    own = similarity.diagonal()
    image_asks = (margin_of_image + similarity - own[:, None]).clamp(min=0)
    text_asks = (margin_of_text + similarity - own[None, :]).clamp(min=0)
    off_diagonal = ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if valid is not None:
        off_diagonal = off_diagonal & valid[:, None] & valid[None, :]
    return torch.where(off_diagonal, image_asks, 0.0), torch.where(off_diagonal, text_asks, 0.0)


def count_valid(similarity: Tensor, valid: Tensor | None) -> Tensor | int:
    """Number of pairs that count."""
    return len(similarity) if valid is None else valid.sum().clamp(min=1)


def mean_hinge(similarity: Tensor, margin: float, valid: Tensor | None = None) -> Tensor:
    """``mean_j c1_ij + mean_j c2_ji`` per pair, the mean over all B entries of the row or column (ncr.md 3.1, 3.2), ``[B]``."""
    image_asks, text_asks = hinge_matrices(similarity, margin, margin, valid)
    return (image_asks.sum(1) + text_asks.sum(0)) / count_valid(similarity, valid)


def hardest_hinge(
    similarity: Tensor, margin_of_image: Tensor | float, margin_of_text: Tensor | float, valid: Tensor | None = None
) -> Tensor:
    """``max_j c1_ij + max_i c2_ij`` per pair, ``[B]`` (VSE++; ncr.md 3.5)."""
    image_asks, text_asks = hinge_matrices(similarity, margin_of_image, margin_of_text, valid)
    return image_asks.amax(1) + text_asks.amax(0)


def weighted_mean(losses: Tensor, weight: Tensor, floor: float = 1e-6) -> Tensor:
    """``sum w l / (sum w + floor)``."""
    return (weight * losses).sum() / (weight.sum() + floor)


def _only_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    return values if valid is None else torch.where(valid, values, 0.0)


def _lowest(logits: Tensor) -> float:
    # Finite, so that the gradient of logsumexp over a masked entry is exactly 0 and never NaN.
    return torch.finfo(logits.dtype).min / 4

"""Recall at K and MAP here against what the field's code does: the matrix of ranks by argsort twice, and a loop over queries with argsort.

Every function is meant for a process of its own, see ``measuring.fresh``; all get the same synthetic embeddings or codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from map_speed import Case, plain_map, tables
from measuring import timed_calls

DIM, CAPTIONS = 512, 5
PLAIN_TYPES = {"float32": np.float32, "float64": np.float64}


def embeddings(n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows float32, five captions per image, hard enough that recalls lie between 0 and 100."""
    draw = np.random.Generator(np.random.PCG64(0))
    images = draw.standard_normal((n_images, DIM), dtype=np.float32)
    captions = np.repeat(images, CAPTIONS, axis=0)
    captions += 6 * draw.standard_normal(captions.shape, dtype=np.float32)
    for table in (images, captions):
        table /= np.linalg.norm(table, axis=1, keepdims=True)
    return images, captions


def recall_here(n_images: int, repeat: int = 3) -> dict[str, Any]:
    """CPU seconds and extra MB from embeddings to recalls, both directions."""
    import torch
    from nocobench.protocols import metrics

    images, captions = (torch.from_numpy(x) for x in embeddings(n_images))
    own = torch.arange(n_images).repeat_interleave(CAPTIONS)
    times, scores = timed_calls(
        lambda: metrics.retrieval_scores(metrics.retrieval_ranks(images, captions, own)), repeat
    )
    return {"cpu": min(times.cpu), "mb": times.peak_extra_mb, "rsum": scores.rsum}


def recall_plain(n_images: int) -> dict[str, Any]:
    """The same by the whole matrix of ranks, argsort of argsort."""
    images, captions = embeddings(n_images)

    def call() -> float:
        similarity = images @ captions.T
        ranks = np.argsort(np.argsort(-similarity, axis=1), axis=1)
        own = np.arange(n_images * CAPTIONS).reshape(n_images, CAPTIONS)
        first = np.take_along_axis(ranks, own, 1).min(1)
        ranks = np.argsort(np.argsort(-similarity.T, axis=1), axis=1)
        second = ranks[np.arange(len(captions)), np.repeat(np.arange(n_images), CAPTIONS)]
        return float(sum(100 * np.mean(rank < k) for rank in (first, second) for k in (1, 5, 10)))

    times, rsum = timed_calls(call, 1)
    return {"cpu": times.cpu[0], "mb": times.peak_extra_mb, "rsum": rsum}


def gemm_of_recall(n_images: int) -> float:
    """CPU seconds of the similarities alone, in one product."""
    import torch
    from measuring import best_of

    images, captions = (torch.from_numpy(x) for x in embeddings(n_images))
    out = images @ captions.T
    return best_of(3, lambda: torch.matmul(images, captions.T, out=out))


def map_here(case: list[Any], repeat: int = 3) -> dict[str, Any]:
    """CPU seconds and extra MB of one direction, with its bounds."""
    import torch
    from nocobench.protocols import map_metrics

    given = [torch.from_numpy(x) for x in tables(Case(*case))]
    map_metrics.rank_by_hamming(given[0][:20], given[1][:1000], given[2][:20], given[3][:1000], k=50)
    times, ranks = timed_calls(lambda: map_metrics.rank_by_hamming(*given, k=50), repeat)
    bounds = [100 * float(values.nanmean()) for values in (ranks.expected, ranks.lower, ranks.upper)]
    return {"cpu": min(times.cpu), "mb": times.peak_extra_mb, "map": bounds}


def map_plain(case: list[Any], queries: int, kind: str) -> dict[str, Any]:
    """The loop over the first ``queries`` queries, its CPU seconds scaled to all."""
    given = [x.astype(PLAIN_TYPES[kind]) for x in tables(Case(*case))]
    plain_map(given[0][:20], given[1], given[2][:20], given[3])
    times, value = timed_calls(lambda: plain_map(given[0][:queries], given[1], given[2][:queries], given[3]), 1)
    return {"cpu": times.cpu[0] * case[0] / queries, "mb": times.peak_extra_mb, "map": value}

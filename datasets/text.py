"""Sentences as vectors: TF-IDF of words and character n-grams, reduced by a truncated SVD, all fitted on training sentences."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TextRecipe:
    """Parameters of the features; the defaults are Multi30K's."""

    dim: int = 256  # components of the SVD
    word_min_df: int = 3  # a word occurs in at least so many training sentences
    char_min_df: int = 5  # and a character n-gram (3 to 5, inside words) in so many
    char_max: int | None = 50_000  # the most frequent n-grams that are kept
    svd_iterations: int = 4

    def depends_on(self) -> dict[str, Any]:
        """What the features depend on besides the sentences: parameters and versions of libraries."""
        versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")}
        return {"recipe": asdict(self), "versions": versions}


def sentence_vectors(recipe: TextRecipe, sentences: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """float32 ``[n_sentences, recipe.dim]`` for each split, vocabulary, weights and SVD from ``train`` alone."""
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counters = [
        TfidfVectorizer(min_df=recipe.word_min_df, sublinear_tf=True, dtype=np.float32),
        TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(3, 5),
            min_df=recipe.char_min_df,
            max_features=recipe.char_max,
            sublinear_tf=True,
            dtype=np.float32,
        ),
    ]
    svd = TruncatedSVD(recipe.dim, n_iter=recipe.svd_iterations, random_state=0)
    with one_thread():
        table = hstack([counter.fit_transform(sentences["train"]) for counter in counters], format="csr")
        vectors = {"train": svd.fit_transform(table)}
        for name in sentences:
            if name != "train":
                table = hstack([counter.transform(sentences[name]) for counter in counters], format="csr")
                vectors[name] = svd.transform(table)
    return {name: vectors[name].astype(np.float32) for name in sentences}


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra inside the block uses one thread, because the number of threads would change the last digits."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows (last axis) of length 1, float32; zero rows stay."""
    with np.errstate(all="ignore"):
        length = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
        return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def item_vectors(sentences: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One vector per item from its unit sentence vectors ``[n_items, n_sentences, d]``: their mean, centred, over one global spread.

    Mean (per dimension) and spread (one number) are those of ``train``.
    """
    with np.errstate(all="ignore"):  # what is not finite stays so, and the check of data sets names it
        means = {name: vectors.astype(np.float64).mean(1) for name, vectors in sentences.items()}
        centre = means["train"].mean(0)
        spread = (means["train"] - centre).std()
        return {name: ((mean - centre) / spread).astype(np.float32) for name, mean in means.items()}

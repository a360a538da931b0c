"""Reading, checking and scaling of feature tables."""

from __future__ import annotations

import numpy as np

from .types import PairDataset


def standardised(features: np.ndarray, train_rows: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1 over the training rows, float32; constant columns become 0."""
    mean, spread = features[train_rows].mean(0), features[train_rows].std(0)
    return ((features - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)


def check_dataset(dataset: PairDataset) -> None:
    """Refuse unusable data."""

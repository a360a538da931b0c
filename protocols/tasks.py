"""What a task is, and the task ``pair-retrieval``: what noise touches, what a method receives, how a model is scored.

The engine asks a task for the data of a shard and for scores of an encoder, and nothing else. ``label_hashing.py`` holds the other task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import noise as noise_models
from ..datasets import registry as dataset_registry
from ..datasets.reserve import reserve_images
from ..datasets.types import EvalView, MetaView, OracleView, PairDataset, PairSplit
from ..methods.contract import Encoder, Method
from ..results.record import (
    CellKey,
    EpochEntry,
    LabelEpochEntry,
    NoiseFacts,
    RetrievalScores,
    Scores,
    TestResult,
)
from . import metrics
from .drivers import Tables
from .protocol import Protocol

META_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ShardData:
    """Everything about the data of a shard that all tasks have: tables on the device, and what only the evaluator may know."""

    dataset: PairDataset
    tables: Tables
    oracles: Sequence[OracleView]
    noise: Sequence[NoiseFacts]
    n_meta_images: int
    n_classes: int = 0
    multi_label: bool = False


@dataclass(frozen=True)
class EpochScores(ABC):
    """What is measured of one model: validation, validation with the training noise, test, and the test results per query."""

    val: Scores
    noisy_val: Scores | None
    test_full: Scores
    test_folds: RetrievalScores | None
    ranks: dict[str, np.ndarray]

    def result(self, epoch: int) -> TestResult:
        """The test part as a record keeps it."""
        return TestResult(epoch=epoch, full=self.test_full, folds=self.test_folds)

    @abstractmethod
    def entry(self, epoch: int, losses: dict[str, float]) -> EpochEntry | LabelEpochEntry:
        """The line of a record's history."""


class Task(ABC):
    """The answers that the engine needs of a task."""

    def __init__(self, protocol: Protocol, data_root: Path | None, device: torch.device) -> None:
        self.protocol = protocol
        self.data_root = data_root
        self.device = device
        self.dtype = getattr(torch, protocol.numerics.dtype)

    @abstractmethod
    def prepare(self, cells: Sequence[CellKey]) -> ShardData:
        """Load the data set once and draw every cell's noise.

        Raises:
            DataError: data that is missing or unusable.
        """

    @abstractmethod
    def score(self, encoder: Encoder, data: Any, run: int) -> EpochScores:
        """All scores of one model of run ``run``; ``data`` is what :meth:`prepare` gave.

        Raises:
            ValueError: embeddings that are not finite.
        """

    def applies_to(self, method: Method) -> str | None:
        """None, or the reason why this method cannot be scored as the protocol wants."""
        return None

    def similarity_density(self) -> bool:
        """Whether the similarity of given training pairs tells clean from noisy ones, so that its histogram is worth keeping."""
        return False

    def features(self, array: np.ndarray) -> Tensor:
        """A table on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)

    def index(self, array: np.ndarray) -> Tensor:
        """Positions on the device, int64."""
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(self.device)


@dataclass(frozen=True, kw_only=True)
class PairData(ShardData):
    """With the splits of pair retrieval; ``noisy_val`` = the noisy assignment of the validation captions per run."""

    val: EvalView
    test: EvalView
    noisy_val: Sequence[Tensor | None]


@dataclass(frozen=True)
class PairScores(EpochScores):
    """Recalls."""

    val: RetrievalScores
    noisy_val: RetrievalScores | None
    test_full: RetrievalScores

    def entry(self, epoch: int, losses: dict[str, float]) -> EpochEntry:
        return EpochEntry(
            epoch=epoch,
            val_rsum=self.val.rsum,
            val_mean_r1=self.val.mean_r1,
            test_rsum=self.test_full.rsum,
            noisy_val_rsum=None if self.noisy_val is None else self.noisy_val.rsum,
            losses=losses,
        )


class PairRetrieval(Task):
    """Image-text retrieval with mismatched training pairs (specs/protocol-noisy-correspondence.md)."""

    def similarity_density(self) -> bool:
        return True

    def prepare(self, cells: Sequence[CellKey]) -> PairData:
        choice = self.protocol.dataset
        dataset = dataset_registry.load(choice.name, self.data_root, **choice.options)
        train, meta = dataset.splits["train"], None
        if self.protocol.grants.clean_meta_set is not None:
            train, meta = reserve_images(train, self.protocol.grants.clean_meta_set.share, dataset.name, META_SEED)
        drawn = [self._noise(dataset.name, train, cell) for cell in cells]
        tables = Tables(
            self.features(train.images),
            self.features(train.captions),
            {"image_of_pair": torch.stack([self.index(d.target_index) for d in drawn])},
            None if meta is None else self._meta(meta),
        )
        val = dataset.splits["val"]
        return PairData(
            dataset=dataset,
            tables=tables,
            oracles=[
                OracleView(None if d.is_noisy is None else torch.from_numpy(d.is_noisy).to(self.device)) for d in drawn
            ],
            noise=[
                NoiseFacts(model=cell.noise, nominal=d.nominal_rate, realised=d.realised_rate, digest=d.digest)
                for cell, d in zip(cells, drawn, strict=True)
            ],
            val=self._view(val),
            test=self._view(dataset.splits["test"]),
            noisy_val=[self._noisy_val(dataset.name, val, cell) for cell in cells],
            n_meta_images=0 if meta is None else meta.n_images,
        )

    def score(self, encoder: Encoder, data: PairData, run: int) -> PairScores:
        val_images, val_texts = encoder.images(data.val.images), encoder.texts(data.val.captions)
        test_images, test_texts = encoder.images(data.test.images), encoder.texts(data.test.captions)
        evaluation = self.protocol.evaluation

        def scores(images: Tensor, texts: Tensor, own: Tensor) -> tuple[metrics.Ranks, RetrievalScores]:
            ranks = metrics.retrieval_ranks(images, texts, own, block=evaluation.block)
            return ranks, metrics.retrieval_scores(ranks)

        noisy = data.noisy_val[run]
        ranks, full = scores(test_images, test_texts, data.test.image_of_caption)
        folds = None
        if evaluation.folds > 1:
            folds = metrics.fold_scores(
                test_images, test_texts, data.test.image_of_caption, evaluation.folds, block=evaluation.block
            )
        return PairScores(
            val=scores(val_images, val_texts, data.val.image_of_caption)[1],
            noisy_val=None if noisy is None else scores(val_images, val_texts, noisy)[1],
            test_full=full,
            test_folds=folds,
            ranks=ranks.arrays(),
        )

    def _noise(self, dataset: str, split: PairSplit, cell: CellKey) -> noise_models.NoiseRealisation:
        options = dict(self.protocol.noise.options)
        return noise_models.realise(cell.noise, dataset, split.image_of_caption, cell.rate, cell.seed, **options)

    def _noisy_val(self, dataset: str, val: PairSplit, cell: CellKey) -> Tensor | None:
        """The validation split with noise of the same kind, for selection without clean pairs; None where that has no meaning."""
        if not cell.rate or self.protocol.noise.options:
            return None
        drawn = noise_models.realise(cell.noise, f"{dataset}/val", val.image_of_caption, cell.rate, cell.seed)
        return self.index(drawn.target_index)

    def _view(self, split: PairSplit) -> EvalView:
        return EvalView(self.features(split.images), self.features(split.captions), self.index(split.image_of_caption))

    def _meta(self, split: PairSplit) -> MetaView:
        return MetaView(self.features(split.images), self.features(split.captions), self.index(split.image_of_caption))


Scorer = Callable[[Encoder, int], EpochScores]

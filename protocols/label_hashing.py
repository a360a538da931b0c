"""The task ``label-hashing``: label-based retrieval, by codes or by real-valued embeddings, with wrong labels of the training items.

Pairs are right in this task; noise touches the labels only (specs/protocol-noisy-labels.md). Validation and test labels stay true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..datasets import label_noise
from ..datasets import registry as dataset_registry
from ..datasets.labels import is_multi_label, label_matrices
from ..datasets.reserve import reserve_images
from ..datasets.types import DataError, LabelledView, MetaView, OracleView, PairDataset, PairSplit
from ..methods.contract import Encoder, Method, codes
from ..results.record import CellKey, LabelEpochEntry, LabelNoiseFacts, LabelScores
from . import map_metrics
from .drivers import Tables
from .map_metrics import LabelRanks
from .schema import LabelEvaluation
from .tasks import META_SEED, EpochScores, ShardData, Task


@dataclass(frozen=True, kw_only=True)
class LabelData(ShardData):
    """With the items that are searched for and searched.

    ``val_database`` and ``test_database`` are the searched items; ``noisy_val`` holds, per run, the validation labels with noise
    of the same kind as in training, for selection without clean labels, or None.
    """

    val: LabelledView
    test: LabelledView
    val_database: LabelledView
    test_database: LabelledView
    noisy_val: Sequence[Tensor | None]


@dataclass(frozen=True)
class MapScores(EpochScores):
    """Mean average precisions."""

    val: LabelScores
    noisy_val: LabelScores | None
    test_full: LabelScores

    def entry(self, epoch: int, losses: dict[str, float]) -> LabelEpochEntry:
        return LabelEpochEntry(
            epoch=epoch,
            val_map=self.val.mean_map,
            test_map=self.test_full.mean_map,
            noisy_val_map=None if self.noisy_val is None else self.noisy_val.mean_map,
            losses=losses,
        )


@dataclass(frozen=True)
class Embedded:
    """Items as a model sees them, ``[n, bits]`` codes or ``[n, dim]`` embeddings, with their labels."""

    images: Tensor
    texts: Tensor
    labels: Tensor


class LabelHashing(Task):
    """Cross-modal retrieval by class or by shared labels."""

    @property
    def rules(self) -> LabelEvaluation:
        """What is searched, and with which codes."""
        assert self.protocol.evaluation.labels is not None, "the protocol's validation demands it"
        return self.protocol.evaluation.labels

    def applies_to(self, method: Method) -> str | None:
        if self.rules.codes == "learned" and not method.learns_codes:
            return "the protocol searches learned codes, but this method learns hash functions only"
        return None

    def prepare(self, cells: Sequence[CellKey]) -> LabelData:
        choice = self.protocol.dataset
        dataset = dataset_registry.load(choice.name, self.data_root, **choice.options)
        n_classes = label_matrices(dataset)["train"].shape[1]
        train, meta = dataset.splits["train"], None
        if self.protocol.grants.clean_meta_set is not None:
            train, meta = reserve_images(train, self.protocol.grants.clean_meta_set.share, dataset.name, META_SEED)
        reduced = replace(dataset, splits={**dataset.splits, "train": train}, n_classes=n_classes)
        labels = label_matrices(reduced)
        drawn = [self._noise(dataset.name, labels["train"], cell) for cell in cells]
        tables = Tables(
            self.features(train.images), self.features(train.captions), self._given(drawn), self._meta(meta)
        )
        views = {name: self._view(reduced.splits[name], labels[name]) for name in ("train", "val", "test")}
        square = self.rules.database == "test"
        return LabelData(
            dataset=dataset,
            tables=tables,
            oracles=[OracleView(torch.from_numpy(d.is_noisy).to(self.device)) for d in drawn],
            noise=[_facts(cell, d) for cell, d in zip(cells, drawn, strict=True)],
            n_meta_images=0 if meta is None else meta.n_images,
            n_classes=tables.given["labels"].shape[-1],
            multi_label=is_multi_label(dataset),
            val=views["val"],
            test=views["test"],
            val_database=views["val"] if square else views["train"],
            test_database=self._test_database(reduced, labels, views),
            noisy_val=[self._noisy_val(dataset.name, labels["val"], cell) for cell in cells],
        )

    def score(self, encoder: Encoder, data: LabelData, run: int) -> MapScores:
        val, test = self._embedded(encoder, data.val), self._embedded(encoder, data.test)
        square = self.rules.database == "test"
        searched = {
            "val": val if square else self._database(encoder, data.val_database),
            "test": test if square else self._database(encoder, data.test_database),
        }
        if square and self.rules.codes == "fused":
            searched = {"val": self._database(encoder, data.val), "test": self._database(encoder, data.test)}
        ranks, full = self._search(test, searched["test"])
        noisy = data.noisy_val[run]
        return MapScores(
            val=self._search(val, searched["val"])[1],
            noisy_val=None if noisy is None else self._search_noisy(val, searched["val"], noisy, square),
            test_full=full,
            test_folds=None,
            ranks=_arrays(*ranks),
        )

    def _search_noisy(self, val: Embedded, database: Embedded, noisy: Tensor, square: bool) -> LabelScores:
        """Validation where nobody knows the true labels: those of the queries are noisy, and in the square case of the database too."""
        searched = replace(database, labels=noisy) if square else database
        return self._search(replace(val, labels=noisy), searched)[1]

    def _search(self, queries: Embedded, database: Embedded) -> tuple[tuple[LabelRanks, LabelRanks], LabelScores]:
        rank = map_metrics.rank_by_hamming if self._binary(queries) else map_metrics.rank_by_similarity
        options = {"k": self.rules.k, "block": self.protocol.evaluation.block}
        i2t = rank(queries.images, database.texts, queries.labels, database.labels, **options)
        t2i = rank(queries.texts, database.images, queries.labels, database.labels, **options)
        return (i2t, t2i), map_metrics.label_scores(i2t, t2i, self.rules.k)

    def _binary(self, items: Embedded) -> bool:
        return items.images.dtype == torch.int8

    def _embedded(self, encoder: Encoder, view: LabelledView) -> Embedded:
        images, texts = encoder.images(view.images), encoder.texts(view.texts)
        _refuse_non_finite(images, texts)
        if encoder.binary:
            images, texts = _signs(images), _signs(texts)
        return Embedded(images, texts, view.labels)

    def _database(self, encoder: Encoder, view: LabelledView) -> Embedded:
        """The searched items with the codes that the protocol names."""
        if self.rules.codes == "learned":
            learned = encoder.learned_codes()
            assert learned is not None, "refused before training, see applies_to"
            return Embedded(_signs(learned[0]), _signs(learned[1]), view.labels)
        if self.rules.codes == "hash-function":
            return self._embedded(encoder, view)
        fused = encoder.images(view.images) + encoder.texts(view.texts)
        _refuse_non_finite(fused)
        fused = _signs(fused) if encoder.binary else torch.nn.functional.normalize(fused, dim=-1)
        return Embedded(fused, fused, view.labels)

    def _noise(self, dataset: str, labels: np.ndarray, cell: CellKey) -> label_noise.LabelNoiseRealisation:
        if cell.rate is None:
            raise DataError(f"label noise {cell.noise!r} has no rate; give rates in the protocol, 'none' is for pairs")
        options = dict(self.protocol.noise.options)
        return label_noise.realise(cell.noise, dataset, labels, cell.rate, cell.seed, **options)

    def _noisy_val(self, dataset: str, labels: np.ndarray, cell: CellKey) -> Tensor | None:
        if not cell.rate or self.protocol.noise.options:
            return None
        drawn = label_noise.realise(cell.noise, f"{dataset}/val", labels, cell.rate, cell.seed)
        return self.features(drawn.labels[:, : labels.shape[1]])

    def _given(self, drawn: Sequence[label_noise.LabelNoiseRealisation]) -> dict[str, Tensor]:
        n = len(drawn[0].labels)
        given = {
            "image_of_pair": torch.arange(n, device=self.device).expand(len(drawn), n).contiguous(),
            "labels": torch.stack([self.features(d.labels) for d in drawn]),
        }
        if any(d.text_labels is not d.labels for d in drawn):
            given["text_labels"] = torch.stack([self.features(d.text_labels) for d in drawn])
        return given

    def _test_database(
        self, dataset: PairDataset, labels: dict[str, np.ndarray], views: dict[str, LabelledView]
    ) -> LabelledView:
        if self.rules.database in views:
            return views[self.rules.database]
        if dataset.database is None:
            raise DataError(
                f"{dataset.name}: the protocol searches the rest of the data set, which has no such part; "
                "choose database 'test' or 'train'"
            )
        return self._view(dataset.database, labels["database"])

    def _view(self, split: PairSplit, labels: np.ndarray) -> LabelledView:
        return LabelledView(self.features(split.images), self.features(split.captions), self.features(labels))

    def _meta(self, split: PairSplit | None) -> MetaView | None:
        if split is None:
            return None
        images, texts = self.features(split.images), self.features(split.captions)
        return MetaView(images, texts, self.index(split.image_of_caption))


def _signs(embeddings: Tensor) -> Tensor:
    return codes(embeddings).to(torch.int8)


def _refuse_non_finite(*tables: Tensor) -> None:
    # The sign would hide it.
    if not all(bool(table.isfinite().all()) for table in tables):
        raise ValueError("embeddings are not finite")


def _facts(cell: CellKey, drawn: label_noise.LabelNoiseRealisation) -> LabelNoiseFacts:
    return LabelNoiseFacts(
        model=cell.noise,
        nominal=drawn.nominal_rate,
        realised=drawn.realised_rate,
        digest=drawn.digest,
        **{name: drawn.facts[name] for name in ("still_true", "wrong_entries", "wrong_affinity")},
    )


def _arrays(i2t: LabelRanks, t2i: LabelRanks) -> dict[str, np.ndarray]:
    """For the sidecar: average precision per query (NaN without a relevant item) and the precision-recall curve at its cut-offs."""
    arrays = {}
    for way, ranks in (("i2t", i2t), ("t2i", t2i)):
        arrays[f"{way}_average_precision"] = ranks.expected.cpu().numpy().astype(np.float32)
        arrays[f"{way}_cutoffs"] = ranks.cutoffs.cpu().numpy().astype(np.uint32)
        arrays[f"{way}_precision"] = ranks.precision.cpu().numpy().astype(np.float64)
        arrays[f"{way}_recall"] = ranks.recall.cpu().numpy().astype(np.float64)
    return arrays

"""The training cases of external.py: ``rshnl`` and ``mgsh`` in their released recipes, through the suite's engine, on given arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from external_input import PARTS, Arrays, BadInput, label_rows, number, table
from measuring import Clock, Times, growing
from nocobench.datasets import label_noise
from nocobench.datasets import registry as datasets
from nocobench.datasets.types import MetaView, PairDataset, PairSplit
from nocobench.methods import registry as methods
from nocobench.methods.hashing_towers import HashingTowers
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import cells_of
from nocobench.protocols.label_hashing import LabelData, LabelHashing, MapScores
from nocobench.protocols.protocol import load_protocol, validated
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore

NAME = "external"
# Of the released heads (rshnl.md section 2, mgsh.md section 5), and MGSH's share of verified pairs (mgsh.md section 4).
HIDDEN = {"rshnl": 4096, "mgsh": 8192}
META_SHARE = 0.02


@dataclass(frozen=True)
class Settings:
    """The numbers of the file."""

    bits: int
    epochs: int
    batch: int
    lr: float
    noise: float
    warmup: int
    hidden: int


def settings_of(method: str, arrays: Arrays) -> Settings:
    """The numbers, checked.

    Raises:
        BadInput: one that is not a number or out of range.
    """
    least = {"bits": 1, "epochs": 1, "batch": 2, "warmup": 0, "hidden": 1}
    whole = {
        key: int(number(arrays, key, low, whole=True)) if key in arrays else HIDDEN[method]
        for key, low in least.items()
    }
    noise, rate = number(arrays, "noise", 0), number(arrays, "lr", 0)
    if noise > 1 or rate == 0:
        raise BadInput(f"noise is {noise:g} and lr {rate:g}; noise is a share from 0 to 1 and lr is above 0")
    return Settings(lr=rate, noise=noise, **whole)


def dataset_of(arrays: Arrays) -> PairDataset:
    """The arrays as a data set of labelled items.

    Raises:
        BadInput: tables that do not fit together.
    """
    labels = label_rows([arrays[f"lab_{part}"] for part in PARTS], [f"lab_{part}" for part in PARTS])
    splits: dict[Any, PairSplit] = {}
    for part, rows in zip(PARTS, labels, strict=True):
        images, texts = (table(arrays, f"{kind}_{part}").astype(np.float32) for kind in ("img", "txt"))
        if not len(images) == len(texts) == len(rows):
            raise BadInput(
                f"{part}: {len(images)} images, {len(texts)} texts and {len(rows)} labels; give as many of each"
            )
        splits[part] = PairSplit(images, texts, np.arange(len(images)), rows.astype(np.uint8))
    return PairDataset(NAME, splits, n_classes=labels[0].shape[1])


class Given(LabelHashing):
    """Labels as they are given, validation after every epoch, and for MGSH verified pairs out of the training items, as released.

    The test items are not scored: the released loops look at them once, after training. Where a record wants test scores it gets those of
    the validation; it is thrown away.
    """

    clock: Clock
    val_map = 0.0

    def prepare(self, cells: Any) -> LabelData:
        protocol = self.protocol
        self.protocol = protocol.model_copy(
            update={"grants": protocol.grants.model_copy(update={"clean_meta_set": None})}
        )
        data = super().prepare(cells)
        self.protocol = protocol
        if protocol.grants.clean_meta_set is None:
            return data
        tables = data.tables
        count = max(2, round(META_SHARE * tables.n_pairs))
        chosen = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).permutation(tables.n_pairs)[:count])
        meta = MetaView(tables.images[chosen], tables.captions[chosen], torch.arange(count))
        return replace(data, tables=replace(tables, meta=meta), n_meta_images=count)

    def score(self, encoder: Any, data: LabelData, run: int) -> MapScores:
        self.clock.score_begins()
        val = self._embedded(encoder, data.val)
        scores = self._search(val, val)[1]
        self.val_map = scores.mean_map / 100
        self.clock.score_ends()
        return MapScores(val=scores, noisy_val=None, test_full=scores, test_folds=None, ranks={})

    def _noise(self, dataset: str, labels: np.ndarray, cell: Any) -> label_noise.LabelNoiseRealisation:
        return label_noise.realise(cell.noise, dataset, labels, 0.0, cell.seed)

    def _noisy_val(self, dataset: str, labels: np.ndarray, cell: Any) -> None:
        return None


def register_method(method: str, settings: Settings) -> str:
    """Make the method known with the heads and numbers of its released recipe, and return its name."""
    base: Any = methods.get(method).cls
    budget = replace(
        base.recipe,
        epochs=settings.epochs,
        batch_size=settings.batch,
        optimizer=replace(base.recipe.optimizer, learning_rate=settings.lr),
    )

    def networks(self: Any) -> dict[str, Callable[[], torch.nn.Module]]:
        found = dict(base.networks(self))
        if method == "mgsh":  # two layers for texts where the suite's common heads have three
            spec = self.spec
            sizes = spec.image_dim, spec.text_dim, settings.hidden, spec.bits
            found["net"] = lambda: HashingTowers(*sizes, text_layers=2, bias=True)
        return found

    changes = {
        "networks": networks,
        "variants": {"released": replace(base.variants["released"], warmup_epochs=settings.warmup)},
        # The suite leaves at least one epoch to the method itself, the released loops do not.
        "warmup_epochs": lambda self, wanted, pretrained=None: wanted,
        "recipe": budget,
        "__module__": __name__,
    }
    name = f"{NAME}_{method}"
    methods.register(name=name)(type(base.__name__, (base,), changes))
    return name


def protocol_of(settings: Settings, dataset: PairDataset, wants_meta: bool) -> Any:
    """``xmedia-labels`` with the sizes of the file."""
    labels = np.concatenate([split.labels for split in dataset.splits.values() if split.labels is not None])
    content = load_protocol("xmedia-labels").model_dump(mode="json")
    content["name"], content["dataset"], content["track"] = NAME, {"name": NAME, "options": {}}, "author-recipe"
    content["backbone"]["hidden"], content["bits"] = settings.hidden, [settings.bits]
    content["budget"]["epochs"] = settings.epochs
    content["numerics"]["threads"] = torch.get_num_threads()
    content["noise"]["model"] = "nested-symmetric" if (labels.sum(1) == 1).all() else "multilabel-flip"
    content["grants"]["clean_meta_set"] = {"share": META_SHARE} if wants_meta else None
    return validated(content, NAME)


def train(method: str, arrays: Arrays, repeat: int) -> tuple[Times, dict[str, float]]:
    """Train ``repeat`` times from the start; one entry of the times per epoch.

    Raises:
        BadInput: unusable arrays.
        RuntimeError: the training failed.
    """
    settings, dataset = settings_of(method, arrays), dataset_of(arrays)
    if dataset.splits["train"].n_images < 3:
        raise BadInput(f"{dataset.splits['train'].n_images} training items; at least 3 are needed")
    datasets.register_dataset(name=NAME)(lambda data_root: dataset)
    name = register_method(method, settings)
    protocol = protocol_of(settings, dataset, wants_meta="clean-meta-set" in methods.get(name).cls.needs)
    cells = cells_of(protocol, name, "released", (settings.noise,), (0,))
    times, outcome, task = Times(), None, None
    for _ in range(repeat):
        task, clock = Given(protocol, None, torch.device("cpu")), Clock(Times())
        task.clock = clock
        with tempfile.TemporaryDirectory() as folder, growing(times):
            store = RecordStore(Path(folder) / "runs")
            engine.run_together(
                cells, protocol, store, data_root=None, device="cpu", checkpoint_dir=Path(folder), checkpoint_every=1e9,
                command=NAME, on_event=clock.on_event, stop=lambda: False, make_task=lambda *_, task=task: task,
            )  # fmt: skip
            (record,) = store.scan()
        if not isinstance(record, RunRecord) or record.outcome is None:
            raise RuntimeError(f"training failed: {record.reason}")
        clock.check(settings.epochs)
        times.wall += clock.times.wall
        times.cpu += clock.times.cpu
        outcome = record.outcome
    assert outcome is not None
    assert task is not None
    return times, {"val_map_last": task.val_map, "weights": outcome.parameters}

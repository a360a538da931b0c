"""Runs of the suite's engine on synthetic data held in memory: seconds per epoch, and memory.

Every function returns plain numbers and is meant for a process of its own, see ``measuring.fresh``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Clock, Times, fresh, growing, warm_up
from nocobench.datasets import registry as datasets
from nocobench.datasets.types import PairDataset, PairSplit
from nocobench.methods import registry as methods
from nocobench.protocols import engine
from nocobench.protocols.contract_checks import cells_of
from nocobench.protocols.protocol import Protocol, load_protocol, validated
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore

NAME = "benchmark"
PAIRS = {"image_dim": 512, "text_dim": 512, "zero_shot": 0.5}
SIZES: dict[str, dict[str, Any]] = {
    "2k x 5": {"n_train": 2000, "n_val": 1000, "n_test": 1000, "captions_per_image": 5, **PAIRS},
    "29k x 5": {"n_train": 29_000, "n_val": 1014, "n_test": 1000, "captions_per_image": 5, **PAIRS},
    "4,000 labels": {
        "n_train": 4000,
        "n_val": 500,
        "n_test": 500,
        "image_dim": 4096,
        "text_dim": 3000,
        "n_classes": 20,
    },
    "400 x 5": {"n_train": 400, "n_val": 100, "n_test": 100, "captions_per_image": 5, **PAIRS},
    "256 labels": {"n_train": 256, "n_val": 100, "n_test": 100, "image_dim": 1024, "text_dim": 750, "n_classes": 20},
}
RATES = (0.4, 0.2, 0.6, 0.8)


def protocol_of(size: dict[str, Any], epochs: int, **changes: Any) -> Protocol:
    """Heads of CLIP features (``flickr30k-clip-pairs``), or hashing towers of 4096 units and 128 bits (``xmedia-labels``).

    ``changes``: ``hidden``, ``batch_size``, or ``small`` for the heads of ``digits-pairs``.
    """
    labels = "n_classes" in size
    content = load_protocol("xmedia-labels" if labels else "flickr30k-clip-pairs").model_dump(mode="json")
    if changes.pop("small", False):
        content["backbone"] = load_protocol("digits-pairs").backbone.model_dump(mode="json")
    content["name"], content["dataset"] = NAME, {"name": NAME, "options": {}}
    content["budget"]["epochs"] = epochs
    content["budget"]["batch_size"] = changes.pop("batch_size", content["budget"]["batch_size"])
    content["backbone"]["hidden"] = changes.pop("hidden", content["backbone"]["hidden"])
    content["numerics"]["width"] = 1000
    if labels:
        content["bits"] = [128]
    else:
        content["grants"]["clean_meta_set"] = None
    assert not changes, changes
    return validated(content, NAME)


def data(size: dict[str, Any], folder: str) -> PairDataset:
    """Synthetic data, also known to the suite as ``benchmark``.

    They are made in another process and kept as files in ``folder``: the memory that making them takes must not be there to be used again.
    """
    place = Path(folder) / hashlib.sha256(json.dumps(size, sort_keys=True).encode()).hexdigest()[:12]
    if not place.exists():
        fresh("suite_runs", "write_data", size=size, place=str(place))
    splits = {
        part: PairSplit(**{path.stem: np.load(path) for path in sorted((place / part).glob("*.npy"))})
        for part in ("train", "val", "test")
    }
    made = PairDataset(NAME, splits, shared_space="zero_shot" in size, n_classes=size.get("n_classes"))  # type: ignore[arg-type]
    datasets.register_dataset(name=NAME)(lambda data_root: made)
    return made


def write_data(size: dict[str, Any], place: str) -> None:
    """Make the data and write every array to a file."""
    for part, split in datasets.load("synthetic", None, **size).splits.items():
        folder = Path(place) / part
        folder.mkdir(parents=True)
        for name in ("images", "captions", "image_of_caption", "labels"):
            if getattr(split, name) is not None:
                np.save(folder / f"{name}.npy", getattr(split, name))


def without_warm_up(method: str) -> str:
    """The method as it is after its warm-up, from the first epoch on; returns a name for it.

    NPC's search for trusted neighbours, once per run and quadratic in the number of pairs, is left out: its bank is every pair itself.
    """
    base: Any = methods.get(method).cls
    changes: dict[str, Any] = {"warmup_epochs": lambda self, wanted, pretrained=None: 0, "__module__": __name__}
    if method == "npc":
        changes["observes"] = lambda self, epoch: False
    if method == "ncr":
        changes["variants"] = {"main": base.variants["always_noisy"]}
    name = f"{NAME}_{method}"
    methods.register(name=name)(type(base.__name__, (base,), changes))
    return name


def timed_task(protocol: Protocol, clock: Clock) -> Any:
    """The protocol's task, telling the clock of its evaluations."""
    task = engine.TASKS[protocol.task](protocol, None, torch.device("cpu"))
    score = task.score

    def timed(*given: Any) -> Any:
        clock.score_begins()
        scores = score(*given)
        clock.score_ends()
        return scores

    task.score = timed  # type: ignore[method-assign]
    return task


def epochs(
    method: str,
    size: dict[str, Any],
    folder: str,
    runs: int = 1,
    n_epochs: int = 1,
    seeds: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train ``runs`` runs side by side: CPU seconds of every epoch per run, and MB.

    Returns:
        ``epoch`` and of it ``evaluate``; ``extra_mb`` above what was resident when the data were there; ``tables_mb`` of the features;
        ``weights`` per run; ``score`` of the first run.
    """
    protocol, made = protocol_of(size, n_epochs, **changes), data(size, folder)
    name = without_warm_up(method)
    seeds = seeds or max(1, -(-runs // len(RATES)))
    variant = next(iter(methods.get(name).cls.variants))
    cells = cells_of(protocol, name, variant, RATES, range(seeds))[:runs]
    assert len(cells) == runs
    first = runs * min(2, len(methods.get(name).cls.tested))
    clock, memory = Clock(Times(), first), Times()
    warm_up()
    with tempfile.TemporaryDirectory() as results, growing(memory):
        store = RecordStore(Path(results) / "runs")
        engine.run_together(
            cells, protocol, store, data_root=None, device="cpu", checkpoint_dir=Path(results), checkpoint_every=1e9,
            command=NAME, on_event=clock.on_event, stop=lambda: False, make_task=lambda *_: timed_task(protocol, clock),
        )  # fmt: skip
        found = list(store.scan())
    for record in found:
        if not isinstance(record, RunRecord) or record.outcome is None:
            raise RuntimeError(f"{method} failed: {record.reason}")
    clock.check(n_epochs)
    outcome = found[0].outcome  # type: ignore[union-attr]
    assert outcome is not None
    return {
        "epoch": [seconds / runs for seconds in clock.times.cpu],
        "evaluate": [seconds / runs for seconds in clock.evaluate],
        "extra_mb": memory.peak_extra_mb,
        "tables_mb": sum(split.images.nbytes + split.captions.nbytes for split in made.splits.values()) / 1e6,
        "weights": outcome.parameters,
        "score": outcome.last.full.headline,
    }


def needed_mb(weights: int, size: dict[str, Any], **changes: Any) -> float:
    """What the tensors of a run need besides the features, MB: weights, gradients, two moments, and a batch's activations and gradients.

    Activations: of every layer of both heads its input and output, and three matrices of pairs of the batch.
    """
    protocol = protocol_of(size, 1, **changes)
    backbone, batch = protocol.backbone, protocol.budget.batch_size
    hidden = backbone.hidden or size["image_dim"]
    if protocol.bits:  # tanh and norm make two more of the code
        widths = [4 * hidden + 3 * protocol.bits[0]] * 2
    else:  # input, its unit row, inner, gelu, outer, sum, unit row
        widths = [2 * size[side] + 2 * hidden + 3 * backbone.dim for side in ("image_dim", "text_dim")]
    pairs = (2 if protocol.bits else 1) ** 2 * batch
    inputs = size["image_dim"] + size["text_dim"]
    return 4 * (4 * weights + batch * (inputs + 2 * sum(widths) + 3 * pairs)) / 1e6

"""Commands that show what there is: ``list`` and ``data``, with the reason where something cannot run here."""

from __future__ import annotations

import functools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

# What only one of the lists needs is imported where it is made: pydantic alone takes a quarter of a second.
from tabulate import tabulate

from ..datasets import label_noise, registry
from ..datasets import noise as noise_models
from ..datasets.types import DataError, PairDataset, PairSplit
from ..methods.outlines import Outline

Row = Sequence[str]
_LAST_COLUMN = 70


def show(what: str, results: Path, data_root: Path | None, plugins: Sequence[Path]) -> int:
    """Print one list; 0 always, because a data set that is missing is information, not a failure."""
    tables: dict[str, Callable[[], str]] = {
        "methods": lambda: methods(plugins),
        "datasets": lambda: datasets(data_root),
        "protocols": lambda: protocols(data_root),
        "noise": noise,
        "runs": lambda: runs(results),
    }
    print(tables[what]())
    return 0


def methods(plugins: Sequence[Path]) -> str:
    """Name, variants, what it asks for; broken ones with their reason."""
    from ..methods.registry import MethodError
    from . import known_methods
    from .plugins import load_plugins

    load_plugins(plugins)
    rows, broken = [], []
    for name in known_methods.names():
        try:
            found = known_methods.facts(name)
        except MethodError as error:
            broken.append(str(error))
            continue
        needs = (f"needs {need}" for need in sorted(found.needs))
        notes = [*_task_notes(found), *sorted(found.flags), *needs, found.package]
        notes_text = ", ".join(note for note in notes if note)
        rows.append((found.task, name, ", ".join(found.variants), found.label, notes_text))
    # sorted() keeps the order of names within a task
    rows.sort(key=lambda row: row[0] == "label-hashing")
    text = _table(("task", "method", "variants (first = default)", "printed as", "notes"), rows)
    return "\n".join([text, *(f"cannot be used: {reason}" for reason in broken)])


def protocols(data_root: Path | None) -> str:
    """Name, data, rates, budget, and whether it can run here."""
    from .protocol import load_protocol, protocol_names

    rows = []
    for name in protocol_names():
        protocol = load_protocol(name)
        rates = protocol.noise.rates
        rows.append(
            (
                protocol.task,
                f"{name} v{protocol.version}",
                protocol.dataset.name,
                "real noise" if rates is None else f"{protocol.noise.model} " + " ".join(f"{rate:g}" for rate in rates),
                f"{protocol.budget.epochs} epochs, {protocol.backbone.label}",
                _availability(protocol.dataset.name, data_root) or "ready",
            )
        )
    rows.sort(key=lambda row: row[0] == "label-hashing")
    return _table(("task", "protocol", "data", "noise", "budget", "here"), rows)


def _task_notes(found: Outline) -> list[str]:
    return ["real-valued"] if found.task == "label-hashing" and not found.binary else []


def datasets(data_root: Path | None) -> str:
    """Name, whether it can be loaded here, and what it is or why it cannot."""
    rows = []
    for name in registry.names():
        here, remark = registry.describe(name, data_root)
        rows.append((name, "yes" if here else "no", remark))
    root = registry.default_data_root() if data_root is None else data_root.expanduser()
    absent = "" if root.is_dir() else " (no such folder)"
    return "\n".join(
        [
            _table(("data set", "here", "what it is, or why not (sizes: images x captions)"), rows),
            f"Data are looked for in {root}{absent}. The path of a folder of your own works as a name too, for example ./my_features.",
        ]
    )


def noise() -> str:
    """Name, level and meaning of every noise model."""
    rows = [
        (name, noise_models.level(name), meaning)
        for name, meaning in _meanings(noise_models.__doc__, noise_models.names())
    ]
    rows += [(name, "label", meaning) for name, meaning in _meanings(label_noise.__doc__, label_noise.names())]
    return _table(("noise model", "level", "meaning"), rows)


def _meanings(docstring: str | None, names: Sequence[str]) -> list[tuple[str, str]]:
    """The modules' docstrings are where the models are defined in words."""
    texts = dict(re.findall(r"^``([\w-]+)``\n((?:    .*\n)+)", docstring or "", re.MULTILINE))
    return [(name, " ".join(texts.get(name, "").split()) or "installed by another package") for name in names]


def check_data(folder: Path) -> int:
    """Load a folder of the user's own, say what is in it and how to use it.

    Raises:
        DataError: it cannot be used; says which file, what was found, what to do.
    """
    place = folder.expanduser().resolve()
    known = place.name in registry.names()
    if known and not place.exists():
        raise DataError(f"{folder} is no folder but the name of a data set; `data fetch {place.name}` looks for it")
    dataset = _known_folder(place) if known else registry.load(f"{place.parent}/{place.name}")
    print(f"{folder} can be used: {dataset.name}")
    for name, split in dataset.splits.items():
        print(f"  {name}: {split.n_images:,} images of {split.images.shape[1]} dimensions, "
              f"{split.n_captions:,} captions of {split.captions.shape[1]}{_extras(split)}")  # fmt: skip
    print(f"  image and caption features {'share one space' if dataset.shared_space else 'have spaces of their own'}; "
          f"{'noisy by nature' if dataset.has_real_noise else 'noise is added by the protocol'}")  # fmt: skip
    where = f"{dataset.name} --data-root {shlex.quote(str(place.parent))}" if known else shlex.quote(str(place))
    print(f"Next: run_benchmark.py --methods clip npc --datasets {where}{'' if known else _protocol_for(dataset)}")
    return 0


def _known_folder(place: Path) -> PairDataset:
    """A folder that is named like a known data set must be that data set."""
    dataset = registry.load(place.name, place.parent)
    if not any(file.startswith(f"{place.name}/") for file in dataset.digests):
        raise DataError(f"the folder {place} has the name of a known data set; rename it, records are kept under it")
    return dataset


def _extras(split: PairSplit) -> str:
    parts = {"labels": split.labels, "image ids": split.image_ids, "texts": split.raw_captions}
    given = [name for name, value in parts.items() if value is not None]
    return f", with {', '.join(given)}" if given else ""


def _protocol_for(dataset: PairDataset) -> str:
    """The option that names a protocol made for such data; empty where the default is."""
    if dataset.has_real_noise:
        return " --protocol cc120k-clip-pairs"
    return " --protocol flickr30k-clip-pairs" if dataset.shared_space else ""


def fetch_data(name: str, data_root: Path | None) -> int:
    """Say whether a data set is here, and prepare features that are kept; nothing is downloaded, because licences differ.

    Raises:
        DataError: it is not here; the sentence says where to get it and where to put it.
    """
    here, remark = registry.describe(name, data_root)
    if not here:
        raise DataError(remark)
    print(f"{name} is here: {remark}", flush=True)
    for file, digest in registry.load(name, data_root).digests.items():
        print(f"  {file}  sha256 {digest}")
    return 0


def runs(results: Path) -> str:
    """What has been run, by protocol, data set and method."""
    from ..results.store import BrokenRecord, RecordStore
    from .plan import runs_folder

    folder = runs_folder(results)
    states: dict[Row, Counter[str]] = {}
    broken = []
    for path, record in RecordStore(folder).scan_paths(sidecars=False):
        if isinstance(record, BrokenRecord):
            broken.append(record.reason)
            continue
        cell = record.cell
        key = (path.relative_to(folder).parts[0], cell.dataset, cell.noise, f"{cell.method}@{cell.variant}")
        states.setdefault(key, Counter())[record.status] += 1
    if not states and not broken:
        return f"no runs in {folder}"
    rows = [
        (*key, ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in sorted(found.items())))
        for key, found in states.items()
    ]
    return "\n".join([_table(("protocol", "data", "noise", "method", "cells"), rows), *broken])


@functools.cache
def _availability(dataset: str, data_root: Path | None) -> str:
    """Empty where the data can be loaded, else why not."""
    here, remark = registry.describe(dataset, data_root)
    return "" if here else remark


def _table(head: Row, rows: Sequence[Row]) -> str:
    widths = [None] * (len(head) - 1) + [_LAST_COLUMN]
    return tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True, maxcolwidths=widths)

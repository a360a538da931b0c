"""Where records live: one JSON file per cell in a readable path, its arrays beside it; complete or absent, and checked when read.

``root/<protocol>-v<version>[+overrides-<8 hex>]/<dataset>/<noise>-<rate or real>/<method>@<variant>/seed<k>.json`` (and ``.npz``).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json

from .files import (
    DiskError,
    StoreError,
    StoreWarning,
    disk_errors,
    folder_name,
    is_temporary,
    read_ordinary,
    remove_temporaries,
    write_atomic,
)
from .record import SCHEMA_VERSION, CellKey, RunRecord, canonical_json, digest_of
from .sidecar import SidecarError, read_sidecar, sidecar_path, to_bytes
from .sources import changed_sources, source_digest

__all__ = [
    "BrokenRecord", "DiskError", "RecordStore", "State", "StoreError", "StoreWarning", "Written", "changed_sources", "check_store",
    "protocol_folder", "source_digest",
]  # fmt: skip

State = Literal["missing", "done", "failed", "timeout", "not_applicable", "broken"]
# What to do when a cell already has a record: leave it, replace it unless it is done, or replace it whatever it is.
Existing = Literal["keep", "retry", "force"]
# ``same`` and ``different`` compare the outcome with that of a finished record that was there before.
Written = Literal["new", "replaced", "kept", "same", "different"]
SNAPSHOT = "protocol.json"
# What tables print of a snapshot, and the words it may use.
_WORDS: dict[str, tuple[str, ...]] = {
    "metric": ("rsum", "mean_r1", "mean_map"),
    "split": ("val", "noisy-val", "last"),
    "headline": ("full", "folds"),
    "database": ("test", "train", "rest"),
    "codes": ("hash-function", "learned", "fused"),
}


@dataclass(frozen=True)
class BrokenRecord:
    """A file where a record should be and that must not be used; ``reason`` is one sentence."""

    path: Path
    reason: str


def protocol_folder(name: str, version: int, overrides: Mapping[str, Any]) -> str:
    """``digits-pairs-v1``, or ``digits-pairs-v1+overrides-1a2b3c4d`` where the command line changed the protocol."""
    mark = f"+overrides-{digest_of(dict(overrides))[:8]}" if overrides else ""
    return folder_name(f"{name}-v{version}") + mark


class RecordStore:
    """The records under ``root``. ``existing`` is what :meth:`write` does, unless told otherwise, when a cell has a record already."""

    def __init__(self, root: Path, existing: Existing = "keep") -> None:
        self.root = Path(root)
        self.existing: Existing = existing

    def path(self, cell: CellKey) -> Path:
        """Where the record of a cell lies, present or not."""
        return self.root / self.home(cell)

    def home(self, cell: CellKey) -> str:
        """The same, seen from the root, with slashes."""
        rate = "real" if cell.rate is None else repr(float(cell.rate))
        parts = (
            protocol_folder(cell.protocol, cell.version, cell.overrides),
            folder_name(cell.dataset),
            folder_name(f"{cell.noise}-{rate}"),
            folder_name(f"{cell.method}@{cell.variant}{'' if cell.bits is None else f'-{cell.bits}bits'}"),
            f"seed{cell.seed}.json",
        )
        return "/".join(parts)

    def read(self, cell: CellKey) -> RunRecord | None:
        """The record of a cell, or None where there is none.

        Raises:
            StoreError: there is one, but it is broken or belongs to another cell.
        """
        record = self._load(cell)
        if isinstance(record, BrokenRecord):
            raise StoreError(record.reason)
        return record

    def sidecar(self, cell: CellKey) -> dict[str, np.ndarray]:
        """The arrays beside the record of a cell.

        Raises:
            SidecarError: missing or damaged.
        """
        return read_sidecar(sidecar_path(self.path(cell)))

    def state(self, cell: CellKey) -> State:
        """What is known of a cell, its arrays included."""
        record = self._load(cell)
        if record is None:
            return "missing"
        return "broken" if isinstance(record, BrokenRecord) else record.status

    def write(
        self, record: RunRecord, sidecar: Mapping[str, np.ndarray] | None = None, existing: Existing | None = None
    ) -> Written:
        """Store a record, its sidecar first, each complete or not at all. Two processes writing the same cell do no harm.

        A finished record is replaced only with ``force``, any other only with ``retry`` or ``force``; a broken one always. What ``force``
        replaces, and what was broken, stays beside the new record under a name that ends in ``.old``.

        Returns:
            ``new``; ``replaced`` an unfinished or broken record; ``kept`` the old one, nothing written; or how the outcome compares
            with a finished record that was there: ``same``, ``different`` (written only with ``force``). A result that is not
            written although it differs, or although there was none, is also a StoreWarning.

        Raises:
            StoreError: the record contradicts itself or its sidecar.
            DiskError: read-only folder, full disk.
            SidecarError: an array of objects.
        """
        arrays = dict(sidecar or {})
        record = _consistent(record, arrays)
        old = self._load(record.cell)
        fate, write = _decide(old, record, existing or self.existing)
        path = self.path(record.cell)
        if not write:
            if fate == "different" or (fate == "kept" and record.status == "done"):
                warnings.warn(_not_written(path, fate), StoreWarning, stacklevel=2)
            return fate
        if isinstance(old, BrokenRecord) or (old is not None and (existing or self.existing) == "force"):
            self._set_aside(path)
        if record.outcome is not None:
            write_atomic(sidecar_path(path), to_bytes(arrays), top=self.root)
        write_atomic(path, _to_bytes(record), top=self.root)
        return fate

    def remove_temporaries(self, cell: CellKey) -> None:
        """Remove what killed processes left of the record of a cell; of a write that goes on now, nothing is lost."""
        path = self.path(cell)
        for file in (path, sidecar_path(path)):
            remove_temporaries(file)

    def scan(self, sidecars: bool = True) -> Iterator[RunRecord | BrokenRecord]:
        """Every record under the root, in order of path. Never fails on a bad file: that is a :class:`BrokenRecord`.

        ``sidecars=False`` skips reading the arrays (ten times faster); everything in the record itself is still checked.
        """
        for _, record in self.scan_paths(sidecars):
            yield record

    def scan_paths(self, sidecars: bool = True) -> Iterator[tuple[Path, RunRecord | BrokenRecord]]:
        """As :meth:`scan`, with the file each comes from."""
        for path in self.files():
            content = read_bytes(path)
            yield path, content if isinstance(content, BrokenRecord) else self.examine(path, content, sidecars)

    def files(self) -> Iterator[Path]:
        """Every file where a record should be, in order of path."""
        for path in self._files(".json"):
            if path.name != SNAPSHOT or path.parent.parent != self.root:
                yield path

    def examine(self, path: Path, content: bytes, sidecars: bool = True) -> RunRecord | BrokenRecord:
        """The record that a file of :meth:`files` holds, with all that :meth:`scan` checks."""
        record = _parse(path, content, sidecars)
        if isinstance(record, BrokenRecord):
            return record
        return self.misplaced(path, self.home(record.cell)) or record

    def misplaced(self, path: Path, home: str) -> BrokenRecord | None:
        """The complaint about a record that lies elsewhere than at its home; None where it is there."""
        if str(path) == os.path.join(self.root, *home.split("/")):
            return None
        return BrokenRecord(path, f"record {path} lies in the wrong place; it belongs to {home}, move it there")

    def write_snapshot(
        self, name: str, version: int, overrides: Mapping[str, Any], resolved: Mapping[str, Any]
    ) -> None:
        """Keep what a protocol said when its first record was made; the same content again changes nothing.

        Raises:
            StoreError: another content is stored for this version; or the folder cannot be written.
        """
        content = {"name": name, "version": version, "overrides": dict(overrides), "resolved": dict(resolved)}
        wanted = json.loads(canonical_json(content))
        path = self.root / protocol_folder(name, version, overrides) / SNAPSHOT
        text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
        if write_atomic(path, text.encode(), overwrite=False, top=self.root):
            return
        stored = self.read_snapshot(name, version, overrides)
        if canonical_json(stored) != canonical_json(wanted):
            changed = ", ".join(_differences(stored or {}, wanted)[:3])
            raise StoreError(
                f"protocol {name} differs from version {version} that the records in {path.parent} were made with ({changed}); raise "
                "the version, or choose another folder with --results"
            )

    def read_snapshot(self, name: str, version: int, overrides: Mapping[str, Any]) -> dict[str, Any] | None:
        """The stored snapshot (keys name, version, overrides, resolved), or None.

        Raises:
            StoreError: it is damaged.
        """
        path = self.root / protocol_folder(name, version, overrides) / SNAPSHOT
        try:
            content = json.loads(read_ordinary(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"snapshot {path} cannot be read ({error}); restore or delete it") from error
        if not _is_snapshot(content):
            raise StoreError(f"snapshot {path} is not one of a protocol; restore or delete it")
        return content

    def _load(self, cell: CellKey) -> RunRecord | BrokenRecord | None:
        path = self.path(cell)
        if not path.exists():
            return None
        record = _read(path, sidecar=True)
        if isinstance(record, RunRecord) and record.cell_id != cell.cell_id:
            other = ", ".join(_differences(record.cell.model_dump(mode="json"), cell.model_dump(mode="json")))
            return BrokenRecord(
                path, f"record {path} belongs to another cell ({other}); the protocol needs a new version"
            )
        return record

    def _files(self, suffix: str) -> Iterator[Path]:
        for folder, below, names in os.walk(self.root):
            below.sort()
            yield from (Path(folder) / name for name in sorted(names) if name.endswith(suffix) and name[0] != ".")

    def _set_aside(self, path: Path) -> None:
        """Copy, not move: readers see the old record until the new one takes its name."""
        with disk_errors(path.parent, self.root):
            mark = digest_of(path.read_bytes().hex())[:8]
            for file in (path, sidecar_path(path)):
                if file.exists():
                    write_atomic(file.with_name(f"{file.name}.{mark}.old"), file.read_bytes(), top=self.root)


def _is_snapshot(content: Any) -> bool:
    """Whether the keys and the kinds of the values are those of :meth:`RecordStore.write_snapshot`."""
    if not isinstance(content, dict) or set(content) != {"name", "version", "overrides", "resolved"}:
        return False
    resolved = content["resolved"]
    if not isinstance(resolved, dict) or not isinstance(content["overrides"], dict):
        return False
    selection, evaluation = resolved.get("selection", {}), resolved.get("evaluation", {})
    labels = (evaluation.get("labels") or {}) if isinstance(evaluation, dict) else {}
    if not all(isinstance(part, dict) for part in (selection, evaluation, labels)):
        return False
    if selection and not {"metric", "split"} <= set(selection):
        return False
    said = {key: part[key] for part in (selection, evaluation, labels) for key in _WORDS if key in part}
    return all(value in _WORDS[key] for key, value in said.items())


def check_store(root: Path) -> list[str]:
    """Everything wrong under ``root``, one sentence each; empty when all is well."""
    store, problems, known = RecordStore(root), [], set()
    for path, record in store.scan_paths():
        known.add(sidecar_path(path))
        if isinstance(record, BrokenRecord):
            problems.append(record.reason)
    for path in store._files(".npz"):
        if path not in known:
            problems.append(f"sidecar {path} has no record beside it; delete it or run the cell again")
    for path in sorted(Path(root).rglob(".*.tmp")):
        if is_temporary(path):
            problems.append(f"file {path} was left by an interrupted write; delete it")
    return problems + _snapshot_problems(store)


def _snapshot_problems(store: RecordStore) -> list[str]:
    problems = []
    for path in sorted(store.root.glob(f"*/{SNAPSHOT}")):
        try:
            content = json.loads(read_ordinary(path))
            home = protocol_folder(content["name"], content["version"], content["overrides"])
            store.read_snapshot(content["name"], content["version"], content["overrides"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            problems.append(f"snapshot {path} cannot be used ({error}); restore or delete it")
        else:
            if home != path.parent.name:
                problems.append(f"snapshot {path} lies in the wrong place; it belongs to {home}")
    return problems


def _consistent(record: RunRecord, arrays: dict[str, np.ndarray]) -> RunRecord:
    """The record with its digests filled in.

    Raises:
        StoreError: it contradicts itself or its arrays.
    """
    name = f"record of {record.cell.method}@{record.cell.variant} seed {record.cell.seed}"
    if record.cell_id != record.cell.cell_id:
        raise StoreError(f"{name} has cell_id {record.cell_id}, its cell gives {record.cell.cell_id}; use cell.cell_id")
    if (record.status == "done") != (record.outcome is not None):
        raise StoreError(
            f"{name} is {record.status!r} and has {'an' if record.outcome else 'no'} outcome; only finished runs have one"
        )
    if record.outcome is None and (arrays or record.outcome_digest):
        raise StoreError(
            f"{name} is {record.status!r} and has arrays or an outcome digest; only finished runs have them"
        )
    if record.outcome is not None:
        found = digest_of(record.outcome.model_dump(mode="json"), arrays)
        if record.outcome_digest not in ("", found):
            raise StoreError(
                f"{name} has outcome digest {record.outcome_digest[:12]}, its outcome and arrays give {found[:12]}"
            )
        record = record.model_copy(update={"outcome_digest": found})
    return record.model_copy(update={"record_digest": _record_digest(record.model_dump(mode="json"))})


def _decide(old: RunRecord | BrokenRecord | None, new: RunRecord, existing: Existing) -> tuple[Written, bool]:
    """What happens, and whether the new record is written."""
    if old is None:
        return "new", True
    if isinstance(old, BrokenRecord):
        return "replaced", True
    if old.status != "done":
        return ("kept", False) if existing == "keep" else ("replaced", True)
    if new.status != "done":
        return ("different", True) if existing == "force" else ("kept", False)
    return ("same" if old.outcome_digest == new.outcome_digest else "different"), existing == "force"


def _not_written(path: Path, fate: Written) -> str:
    if fate == "different":
        return (
            f"{path}: the same cell computed again gave another outcome; the old record is kept, compare with --force"
        )
    return f"{path}: a finished result was not stored over an unfinished one; replace that with --retry failed"


def _to_bytes(record: RunRecord) -> bytes:
    return (json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def _record_digest(content: Mapping[str, Any]) -> str:
    return digest_of({key: value for key, value in content.items() if key != "record_digest"})


def read_bytes(path: Path) -> bytes | BrokenRecord:
    """What a file holds, or why it cannot be read."""
    try:
        return read_ordinary(path)
    except OSError as error:
        return BrokenRecord(path, f"record {path} cannot be read ({error.strerror or error}); run the cell again")


def lacks_sidecar(path: Path) -> BrokenRecord | None:
    """The complaint about a finished record without the file of its arrays; None where there is one."""
    arrays = sidecar_path(path)
    return None if arrays.exists() else BrokenRecord(path, f"sidecar {arrays} is missing; run the cell again")


def _read(path: Path, sidecar: bool) -> RunRecord | BrokenRecord:
    content = read_bytes(path)
    return content if isinstance(content, BrokenRecord) else _parse(path, content, sidecar)


def _parse(path: Path, raw: bytes, sidecar: bool) -> RunRecord | BrokenRecord:
    try:
        content = from_json(raw)  # three times as fast as json.loads, which gives the same
        if not isinstance(content, dict):
            return BrokenRecord(path, f"record {path} holds no record; delete it and run the cell again")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            return BrokenRecord(
                path,
                f"record {path} has schema version {version!r}, this program reads {SCHEMA_VERSION}; use a program that fits, or run "
                "the cell again",
            )
        if content.get("record_digest") != _record_digest(content):
            return BrokenRecord(
                path, f"record {path} was changed after it was written; restore it or run the cell again"
            )
        record = RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return BrokenRecord(
            path, f"record {path} does not fit the schema ({where}: {first['msg']}); run the cell again"
        )
    except (ValueError, RecursionError) as error:
        return BrokenRecord(path, f"record {path} is not complete JSON ({error}); run the cell again")
    problem = _contradiction(record, content["outcome"] if record.outcome else None, path, sidecar)
    return record if problem is None else BrokenRecord(path, problem)


def _contradiction(record: RunRecord, outcome: Any, path: Path, sidecar: bool) -> str | None:
    """``outcome`` as it stands in the file: digests must not change when a later version of the model gains a field."""
    if record.cell_id != record.cell.cell_id:
        return f"record {path} has cell_id {record.cell_id}, its cell gives {record.cell.cell_id}; run the cell again"
    if (record.status == "done") != (record.outcome is not None):
        return (
            f"record {path} is {record.status!r} but has {'an' if record.outcome else 'no'} outcome; run the cell again"
        )
    if record.outcome is None:
        return None
    if not sidecar:
        missing = lacks_sidecar(path)
        return None if missing is None else missing.reason
    try:
        arrays = read_sidecar(sidecar_path(path))
    except SidecarError as error:
        return str(error)
    if digest_of(outcome, arrays) != record.outcome_digest:
        return (
            f"record {path} does not belong to the arrays in {sidecar_path(path)}, one of them was changed; restore it or run the cell "
            "again"
        )
    return None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``budget.epochs: 20 became 30`` for every value that differs."""
    found = []
    for key in sorted({*old, *new}):
        a, b, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{name}.".removeprefix("resolved."))
        elif canonical_json(a) != canonical_json(b):
            found.append(f"{name}: {canonical_json(a)} became {canonical_json(b)}")
    return found

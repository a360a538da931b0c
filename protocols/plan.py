"""A plan: the shards of one protocol, written down, so that ``--shard 7`` means the same to every worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from ..results.record import CellKey, digest_of
from ..results.store import Existing, RecordStore
from .protocol import Protocol, ProtocolError
from .schema import Strict


class Plan(Strict):
    """Everything a worker needs besides the code. Folders are absolute, because workers may start elsewhere.

    Attributes:
        protocol: resolved, with the overrides of the command line.
        shards: cells that are trained side by side.
        data_root: None = ``$NOCOBENCH_DATA`` or the default place.
        results: the folder that holds ``runs`` and ``plans``.
        plugins: files to load before the method is looked up.
        device: ``cpu`` or ``cuda``; which CUDA device is pinned by the environment of the worker.
        checkpoint_every: seconds.
        existing: what to do with records that are there, see ``RecordStore``.
        command: what the user typed, for the records.
    """

    protocol: Protocol
    overrides: dict[str, Any] = Field(default_factory=dict)
    shards: tuple[tuple[CellKey, ...], ...]
    data_root: str | None
    results: str
    plugins: tuple[str, ...] = ()
    device: str = "cpu"
    checkpoint_every: float = Field(default=300.0, ge=0)
    existing: Existing = "keep"
    command: str = ""

    @property
    def id(self) -> str:
        """First 12 hex digits of the hash of the content."""
        return digest_of(self.model_dump(mode="json"))[:12]

    @property
    def runs(self) -> Path:
        """Where records go."""
        return runs_folder(Path(self.results))

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints of unfinished shards lie."""
        return Path(self.results) / "plans" / "checkpoints"

    def path(self) -> Path:
        """``<results>/plans/<id>.json``."""
        return Path(self.results) / "plans" / f"{self.id}.json"

    def write(self) -> Path:
        """Write the plan, whole or not at all, and return where it lies."""
        path = self.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        os.replace(temporary, path)
        return path

    def shard(self, number: int) -> tuple[CellKey, ...]:
        """The cells of one shard.

        Raises:
            ProtocolError: there is no such shard.
        """
        if not 0 <= number < len(self.shards):
            raise ProtocolError(f"plan {self.id} has no shard {number}; its shards are 0 to {len(self.shards) - 1}")
        return self.shards[number]


def runs_folder(results: Path) -> Path:
    """The folder of the records inside a results folder."""
    return results / "runs"


def unfinished_shards(
    results: Path, protocol: Protocol, overrides: dict[str, Any], wanted: Sequence[CellKey]
) -> list[tuple[CellKey, ...]]:
    """Shards of earlier plans that were not finished and consist of wanted cells only, newest plan first.

    Planning them again as they were lets them go on from their checkpoints, which belong to a set of cells.
    """
    free = {cell.cell_id for cell in wanted}
    found = []
    for path in sorted((results / "plans").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            plan = read_plan(path)
        except ProtocolError:
            continue  # of another version of the suite: its checkpoints are of no use either
        if plan.protocol != protocol or plan.overrides != overrides:
            continue
        for shard in plan.shards:
            ids = {cell.cell_id for cell in shard}
            if ids <= free:
                free -= ids
                found.append(shard)
    return found


def remove_finished(results: Path) -> None:
    """Remove plans, and their logs, whose cells all have records, and with the last plan what killed workers left of checkpoints.

    Plans that compute cells again are left to who runs them.
    """
    for path in list((results / "plans").glob("*.json")):
        try:
            plan = read_plan(path)
        except ProtocolError:
            continue
        store = RecordStore(plan.runs)
        if plan.existing == "keep" and all(store.path(cell).exists() for shard in plan.shards for cell in shard):
            for file in (path, *path.parent.glob(f"{path.stem}-*.log")):
                file.unlink(missing_ok=True)
    if not any((results / "plans").glob("*.json")):
        for file in (results / "plans" / "checkpoints").glob("shard-*"):
            file.unlink(missing_ok=True)


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ProtocolError: no such file, or not a plan.
    """
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProtocolError(f"plan {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(
            f"plan {path} is not a plan of this version ({key}: {first['msg']}); start the run again"
        ) from error

"""A plan: the shards of one protocol, written down, so that ``--shard 7`` means the same to every worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ..results.files import is_temporary, read_ordinary, write_atomic
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
    shards: tuple[Annotated[tuple[CellKey, ...], Field(min_length=1)], ...]
    data_root: str | None
    results: str
    plugins: tuple[str, ...] = ()
    device: str = Field(default="cpu", pattern="^(cpu|cuda)$")
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
        """Write the plan, whole or not at all, and return where it lies; one that is there already stays, because others may hold it.

        Raises:
            DiskError: read-only folder, full disk.
        """
        path, content = self.path(), self.model_dump_json(indent=1).encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:
                return path
        write_atomic(path, content, top=Path(self.results))
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
    for path in sorted((results / "plans").glob("*.json"), key=_changed, reverse=True):
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


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has finished it
        return 0.0


@contextlib.contextmanager
def held(plans: Collection[Plan]) -> Iterator[None]:
    """Keep others from removing these plans: their workers are yet to read them. The lock ends with the process, however that ends.

    Raises:
        DiskError: a plan cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for plan in {plan.id: plan for plan in plans}.values():
            stack.enter_context(_shared_lock(plan))
        yield


@contextlib.contextmanager
def _shared_lock(plan: Plan) -> Iterator[None]:
    while True:
        path = plan.write()
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # removed between the two lines by a process that has finished the same plan
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        if _is_still(path, handle):
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def remove_finished(results: Path, finished: Collection[CellKey] = ()) -> None:
    """Remove plans that nobody works on and whose cells all have records, or are among ``finished``; with them their logs and what killed
    workers left of records, and with the last plan what they left of checkpoints.

    Plans that compute cells again are removed only where their cells are among ``finished``. Never fails: on a read-only disk all stays.
    """
    folder, ids = results / "plans", {cell.cell_id for cell in finished}
    with contextlib.suppress(OSError):
        for path in list(folder.glob("*.json")):
            with contextlib.suppress(ProtocolError):
                plan = read_plan(path)
                if _is_finished(plan, ids):
                    _remove(plan, path)
        if not any(folder.glob("*.json")):
            for file in (*(folder / "checkpoints").glob("shard-*"), *filter(is_temporary, folder.glob(".*"))):
                file.unlink(missing_ok=True)


def _is_finished(plan: Plan, finished: Collection[str]) -> bool:
    store, cells = RecordStore(plan.runs), [cell for shard in plan.shards for cell in shard]
    if all(cell.cell_id in finished for cell in cells):
        return True
    return plan.existing == "keep" and all(store.path(cell).exists() for cell in cells)


def _remove(plan: Plan, path: Path) -> None:
    """Unless a process holds it; the last one to finish removes it."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            pass
        store = RecordStore(plan.runs)
        for shard in plan.shards:
            for cell in shard:
                store.remove_temporaries(cell)
        for own in (path, *path.parent.glob(f"{path.stem}-*.log")):
            own.unlink(missing_ok=True)


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        ProtocolError: no such file, or not a plan.
    """
    try:
        return Plan.model_validate_json(read_ordinary(path))
    except OSError as error:
        raise ProtocolError(f"plan {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(
            f"plan {path} is not a plan of this version ({key}: {first['msg']}); start the run again"
        ) from error

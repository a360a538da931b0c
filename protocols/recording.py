"""From the engine's memory to records: outcome, circumstances and provenance of each cell, written as soon as it is complete."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..methods.registry import Registered
from ..results.files import DiskError
from ..results.record import CellKey, Circumstances, Outcome, RunRecord, SignalSummary, Status, digest_of
from ..results.store import RecordStore
from .protocol import Protocol
from .selection import Tracker
from .source_parts import ROOT, source_digests
from .tasks import ShardData

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pydantic")


class Recorder:
    """Writes the records of one shard and keeps its clocks."""

    def __init__(
        self,
        store: RecordStore,
        entry: Registered,
        protocol: Protocol,
        device: str,
        command: str,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        self.store, self.entry, self.protocol = store, entry, protocol
        self.device, self.command, self.on_event = device, command, on_event
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.seconds: dict[str, float] = {}
        self.resumed_at: list[int] = []
        self.finished: set[str] = set()
        self.disk_error: DiskError | None = None

    def event(self, kind: str, **facts: Any) -> None:
        """Tell whoever watches."""
        self.on_event({"event": kind, **facts})

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to the clock ``part``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.clock(part, time.perf_counter() - started)

    def clock(self, part: str, seconds: float) -> None:
        """Add seconds to a clock of the shard."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def resume(self, epoch: int, earlier: Sequence[int], seconds: Mapping[str, float]) -> None:
        """The shard goes on after ``epoch`` epochs from a checkpoint."""
        self.resumed_at = [*earlier, epoch]
        self.seconds = dict(seconds)
        self.event("resumed", epoch=epoch)

    def checkpoint_identity(self, shard: Sequence[CellKey]) -> dict[str, Any]:
        """What a checkpoint of this shard depends on: cells, sources, device kind and numerics."""
        return {
            "cells": [cell.cell_id for cell in shard],
            "sources": source_digests(self.entry.source, self.protocol.task),
            "torch": torch.__version__,
            "device": self.device.split(":")[0],
            "protocol": digest_of(self.protocol.model_dump(mode="json")),
        }

    def done(
        self,
        cell: CellKey,
        slot: int,
        width: int,
        tracker: Tracker,
        data: ShardData,
        parameters: int,
        networks_at_test: int,
        steps: int,
        summaries: Sequence[SignalSummary] = (),
        facts: Mapping[str, float] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        grants: tuple[str, ...] = (),
    ) -> None:
        """Write the record of a finished cell, its sidecar first."""
        assert tracker.selected is not None
        assert tracker.last is not None
        assert tracker.best_on_test is not None
        noisy = tracker.on_noisy_val
        outcome = Outcome(
            selected=tracker.selected,
            last=tracker.last,
            best_on_test=tracker.best_on_test,
            single_network=tracker.single_network,
            selected_on_noisy_val=None if noisy is None or noisy.epoch == tracker.selected.epoch else noisy,
            history=tuple(tracker.history),
            signals=tuple(summaries),
            facts=dict(facts or {}),
            noise=data.noise[slot],
            parameters=parameters,
            networks_at_test=networks_at_test,
            gradient_steps=steps,
            grants=grants,
        )
        sidecar = dict(tracker.ranks) | dict(arrays or {})
        circumstances = self._circumstances(data, width, slot)
        record = self._record(cell, "done", outcome=outcome, circumstances=circumstances)
        self._write(
            record.model_copy(update={"outcome_digest": digest_of(outcome.model_dump(mode="json"), sidecar)}), sidecar
        )
        self.event("cell_done", cell=cell.model_dump(), score=outcome.selected.full.headline)

    def failed(self, cells: Sequence[CellKey], reason: str, trace: str) -> None:
        """Write failure records of those cells that are not finished; a failure is a result too.

        Raises:
            DiskError: nothing can be written. That is no fault of the cells: they stay without a record, to be run again.
        """
        if self.disk_error is not None:
            raise self.disk_error
        for cell in cells:
            if cell.cell_id in self.finished:
                continue
            self._write(self._record(cell, "failed", reason=reason, traceback=trace))
            self.event("cell_failed", cell=cell.model_dump(), reason=reason)

    def not_applicable(self, cells: Sequence[CellKey], reason: str) -> None:
        """Write records that say why the method cannot run here."""
        for cell in cells:
            self._write(self._record(cell, "not_applicable", reason=reason))
            self.event("cell_not_applicable", cell=cell.model_dump(), reason=reason)

    def _write(self, record: RunRecord, sidecar: Mapping[str, np.ndarray] | None = None) -> None:
        try:
            self.store.write(record, sidecar)
        except DiskError as error:
            self.disk_error = error
            raise
        self.finished.add(record.cell_id)

    def _record(self, cell: CellKey, status: Status, **fields: Any) -> RunRecord:
        cls = self.entry.cls
        fields.setdefault(
            "circumstances", Circumstances(started=self.started, command=self.command, device=self.device)
        )
        return RunRecord(
            cell=cell,
            cell_id=cell.cell_id,
            status=status,
            method_label=cls.label,
            method_flags=tuple(sorted(cls.flags)),
            **fields,
        )

    def _circumstances(self, data: ShardData, width: int, slot: int) -> Circumstances:
        share = {part: seconds / width for part, seconds in self.seconds.items()}
        packages = {name: importlib.metadata.version(name) for name in PACKAGES}
        if self.entry.package:
            name, _, version = self.entry.package.partition(" ")
            packages[name] = version
        cuda = self.device.startswith("cuda")
        return Circumstances(
            sources=source_digests(self.entry.source, self.protocol.task),
            data=dict(data.dataset.digests),
            git=_git(),
            packages=packages,
            machine=_machine(self.device),
            device=self.device,
            threads=torch.get_num_threads(),
            width=width,
            slot=slot,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            tf32=self.protocol.numerics.tf32,
            resumed_at=tuple(self.resumed_at),
            seconds=share,
            peak_memory_bytes=torch.cuda.max_memory_allocated() if cuda else _peak_memory(),
            started=self.started,
            command=self.command,
        )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def _git() -> dict[str, Any]:
    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


@functools.cache
def _machine(device: str) -> dict[str, str]:
    facts = {"system": platform.system(), "architecture": platform.machine(), "python": platform.python_version()}
    if device.startswith("cuda"):
        return facts | {"gpu": torch.cuda.get_device_name(torch.device(device)), "cuda": str(torch.version.cuda)}
    return facts | {"cpu": _cpu_model()}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")

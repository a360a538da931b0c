"""From a shard to its records: the entry that a worker calls, and the closed forms; training.py holds the loop over epochs.

A shard is a list of cells of one method that differ in seed and rate only. Its runs are trained side by side; each cell's record is written
as soon as its evaluation is complete.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..datasets.types import DataError
from ..methods import registry
from ..methods.contract import DirectMethod, GradientMethod, Spec
from ..results.record import CellKey
from ..results.store import RecordStore
from . import oracle as _oracle  # noqa: F401  (registers the methods behind the firewall)
from .checkpoint import CheckpointFile
from .drivers import ContractError, check_streaming
from .label_hashing import LabelHashing
from .protocol import Protocol
from .recording import Recorder
from .selection import Tracker
from .setup import set_numerics, spec_for
from .tasks import PairRetrieval, ShardData, Task
from .training import CellRun, Interrupted, ShardTraining

__all__ = ["Event", "Interrupted", "ShardTraining", "run_shard"]

Event = dict[str, Any]
TASKS: dict[str, type[Task]] = {"pair-retrieval": PairRetrieval, "label-hashing": LabelHashing}
# Numbers of float32 in 64 bytes: a line of the cache, and what a CPU kernel takes at once.
BLOCK = 16


class NotStackable(Exception):
    """The sizes of the protocol do not allow runs side by side."""


def run_shard(shard: Sequence[CellKey], protocol: Protocol, store: RecordStore, **settings: Any) -> None:
    """Train and evaluate the cells of one shard and write their records: side by side, or one after another where :func:`stackable`
    says so. See :func:`run_together` for the settings and errors."""
    try:
        run_together(shard, protocol, store, **settings)
    except NotStackable:
        for cell in shard:
            run_together([cell], protocol, store, **settings)


def run_together(
    shard: Sequence[CellKey],
    protocol: Protocol,
    store: RecordStore,
    *,
    data_root: Path | None,
    device: str,
    checkpoint_dir: Path,
    checkpoint_every: float,
    command: str,
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
    make_task: Callable[[Protocol, Path | None, torch.device], Task] | None = None,
    make_training: Callable[..., ShardTraining] | None = None,
) -> None:
    """Train and evaluate the cells of one shard and write their records.

    ``make_task`` and ``make_training`` let the contract checks tamper with data and parameters.

    Raises:
        Interrupted: ``stop()`` became true; a checkpoint was written.
        DataError, MethodError: nothing could be started.
    """
    set_numerics(protocol.numerics)
    entry = registry.get(shard[0].method)
    recorder = Recorder(store, entry, protocol, device, command, on_event)
    task = (make_task or TASKS[protocol.task])(protocol, data_root, torch.device(device))
    try:
        data = task.prepare(shard)
        method = entry.cls(entry.cls.variants[shard[0].variant], spec_for(protocol, entry.cls, data, shard[0]))
        reason = method.applies_to(method.spec) or task.applies_to(method)
        if reason is not None:
            recorder.not_applicable(shard, reason)
        elif isinstance(method, DirectMethod):
            _fit_directly(method, shard, task, data, recorder)
        elif isinstance(method, GradientMethod):
            check_streaming(method, protocol.backbone.kind)
            if len(shard) > 1 and method.batched and not stackable(method.spec, protocol.numerics.dtype):
                raise NotStackable(f"batch size {method.spec.batch_size}, hidden width {method.spec.backbone.hidden}")
            checkpoint = CheckpointFile(checkpoint_dir, recorder.checkpoint_identity(shard), checkpoint_every)
            build = make_training or ShardTraining
            build(method, shard, task, data, recorder, checkpoint, stop).run()
        else:
            raise ContractError(f"method {shard[0].method!r} is neither a DirectMethod nor a GradientMethod")
    except (Interrupted, DataError, KeyboardInterrupt, NotStackable):
        raise
    except Exception as error:
        recorder.failed(shard, f"{type(error).__name__}: {error}", traceback.format_exc())


def stackable(spec: Spec, dtype: str) -> bool:
    """Whether a run's bytes are the same in every slot of a stack.

    Matrix kernels round by where a matrix begins in memory, and elementwise ones (gelu, sigmoid, powers) round the end of a tensor
    differently: both see no difference between slots if a run's share of every tensor is a multiple of 64 bytes. In float64 the powers of
    the optimiser differ all the same.
    """
    if dtype != "float32":
        return False
    backbone = spec.backbone
    widths: tuple[int, ...] = (backbone.dim,)
    if backbone.kind == "residual_adapter":
        widths = (spec.image_dim, spec.text_dim)
    elif backbone.kind == "hashing" and spec.bits:
        widths = (spec.bits,)
    return not any(size % BLOCK for size in (spec.batch_size, backbone.hidden or BLOCK, *widths))


def _fit_directly(
    method: DirectMethod, shard: Sequence[CellKey], task: Task, data: ShardData, recorder: Recorder
) -> None:
    for slot, cell in enumerate(shard):
        try:
            started = time.perf_counter()
            recorder.seconds = {}  # cells come one after another here: each has clocks of its own
            run = CellRun(cell, method.needs_now(), data.tables.meta)
            encoder = method.fit(data.tables.of_run(slot), run)
            recorder.clock("train", time.perf_counter() - started)
            tracker = Tracker(task.protocol.selection)
            started = time.perf_counter()
            tracker.add(0, task.score(encoder, data, slot), {}, None)
            recorder.clock("evaluate", time.perf_counter() - started)
            recorder.done(cell, slot, 1, tracker, data, encoder.parameters(), 1, 0)
        except Exception as error:
            recorder.failed([cell], f"{type(error).__name__}: {error}", traceback.format_exc())

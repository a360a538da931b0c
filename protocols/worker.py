"""Runs one shard of a plan, whatever started it: a terminal, the local executor, a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..results.files import StoreWarning
from .grid import describe
from .plan import Plan
from .plugins import load_plugins

INTERRUPTED = 130
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # fmt: skip

# Set before Python starts, because the libraries read them once. The allocator settings keep glibc from returning every large block
# to the system, which costs 14-24 % of an epoch; both change no number.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def environment(threads: int, cuda_device: str | None) -> dict[str, str]:
    """What the environment of a worker adds; ``cuda_device`` is the one device it may see, None = none."""
    own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return ENVIRONMENT | own | {"CUDA_VISIBLE_DEVICES": cuda_device or ""}


def work(plan: Plan, number: int, *, as_events: bool) -> int:
    """Run shard ``number`` and return the exit code: 0, or 130 after an interruption with a checkpoint.

    The first SIGINT, SIGTERM or SIGUSR1 asks for a checkpoint at the end of the epoch. The second one ends at once, but not a worker that
    another program watches: a cluster sends SIGTERM to both, and that program passes on its own.

    Raises:
        ProtocolError, DataError, MethodError, StoreError: nothing could be started.
    """
    shard = plan.shard(number)
    with _stopping(patient=as_events) as stop, _reporting(as_events) as report:
        # After the handlers: importing torch takes seconds in which a signal must not be lost.
        from ..results.store import RecordStore
        from .engine import Interrupted, run_shard

        load_plugins(map(Path, plan.plugins))
        report({"event": "shard_started", "shard": number, "title": describe(shard)})
        try:
            run_shard(
                list(shard),
                plan.protocol,
                RecordStore(plan.runs, plan.existing),
                data_root=None if plan.data_root is None else Path(plan.data_root),
                device=plan.device,
                checkpoint_dir=plan.checkpoints,
                checkpoint_every=plan.checkpoint_every,
                command=plan.command,
                on_event=report,
                stop=stop,
            )
        except (Interrupted, KeyboardInterrupt):
            report({"event": "interrupted", "shard": number})
            return INTERRUPTED
        report({"event": "shard_finished", "shard": number})
    return 0


def report_error(error: Exception) -> None:
    """Tell the program that started this worker why nothing could be done."""
    print(json.dumps({"event": "error", "message": " ".join(str(error).split())}), flush=True)


class _Stop:
    """Turns true after a signal, or when the process that started this one is gone."""

    def __init__(self, patient: bool) -> None:
        self.asked = False
        self.patient = patient
        self.parent = os.getppid()

    def __call__(self) -> bool:
        return self.asked or os.getppid() != self.parent

    def on_signal(self, number: int, frame: object) -> None:
        if self.asked and not self.patient:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _stopping(patient: bool) -> Iterator[_Stop]:
    stop = _Stop(patient)
    before = {number: signal.signal(number, stop.on_signal) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Reporter:
    """Writes events: as lines of JSON for a program, as sentences for a person."""

    def __init__(self, out: TextIO, as_events: bool) -> None:
        self.out = out
        self.as_events = as_events

    def __call__(self, event: Mapping[str, Any]) -> None:
        line = json.dumps(event) if self.as_events else sentence(event)
        # A reader that is gone must not cost the result: the records are what counts.
        with contextlib.suppress(BrokenPipeError):
            print(line, file=self.out, flush=True)


@contextlib.contextmanager
def _reporting(as_events: bool) -> Iterator[_Reporter]:
    if not as_events:
        yield _Reporter(sys.stdout, False)
        return
    # What libraries print must not end up between the events.
    reporter = _Reporter(sys.__stdout__ or sys.stderr, True)
    with contextlib.redirect_stdout(sys.stderr), _warning(reporter):
        yield reporter


@contextlib.contextmanager
def _warning(reporter: _Reporter) -> Iterator[None]:
    """What a person must hear of goes to the program that started this one: nobody reads the log of a worker that did its work."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, StoreWarning):
            reporter({"event": "warning", "message": str(message)})
        usual(message, category, *where, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def sentence(event: Mapping[str, Any]) -> str:
    """An event in words."""
    kind = event["event"]
    if kind == "epoch":
        return f"epoch {event['epoch']}/{event['epochs']}"
    if "cell" in event:
        cell = event["cell"]
        rate = "" if cell.get("rate") is None else f" noise {cell['rate']:g}"
        reason = f": {event['reason']}" if event.get("reason") else ""
        state = kind.removeprefix("cell_").replace("_", " ")
        return f"{cell['method']}@{cell['variant']}{rate} seed {cell['seed']}: {state}{reason}"
    facts = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
    return f"{kind.replace('_', ' ')}{f' ({facts})' if facts else ''}"

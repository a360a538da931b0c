"""The executor for one machine: one process per shard, several at once, every one started by a command that a person could type."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..results.files import DiskError
from ..results.record import CellKey
from .grid import describe
from .plan import Plan
from .progress import Display
from .protocol import ProtocolError
from .worker import INTERRUPTED, STOP_SIGNALS, environment

BAD_INPUT = 2


@dataclass(frozen=True)
class Job:
    """One shard of a plan that has been written to ``path``."""

    plan: Plan
    path: Path
    number: int

    @property
    def cells(self) -> Sequence[CellKey]:
        return self.plan.shards[self.number]

    @property
    def title(self) -> str:
        return describe(self.cells)

    @property
    def size(self) -> int:
        return len(self.cells)

    @property
    def log(self) -> Path:
        """What the worker writes to its standard error."""
        return self.path.with_name(f"{self.path.stem}-{self.number}.log")


@dataclass
class Summary:
    """How a grid ended.

    Attributes:
        failed: reason by cell, of cells that failed or whose worker died.
        errors: what kept a shard from starting (missing data and the like) or its records from being written.
        warnings: what a person should hear of although the work went on.
        interrupted: somebody asked to stop; finished cells have records, unfinished shards a checkpoint.
    """

    failed: dict[str, tuple[CellKey, str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        if self.errors:
            return BAD_INPUT
        return 1 if self.failed else 0


@dataclass
class Worker:
    """A process that runs one job; ``finished`` holds its cells that have records, ``asked``: somebody wants it to stop."""

    number: int
    job: Job
    process: subprocess.Popen[str]
    place: str | None
    error: str = ""
    finished: set[str] = field(default_factory=set)
    asked: bool = False


Message = tuple[Worker, str | None]
WriteFailure = Callable[[Job, Sequence[CellKey], str], None]


class LocalExecutor:
    """Runs jobs, as many at once as there are ``places``.

    Args:
        program: path of ``run_benchmark.py``.
        places: one entry per worker at a time: the CUDA device it may see, or None for a worker on the CPU.
        display: shows progress.
        write_failure: called when a worker died, with the cells that it had not finished: writes ``failed`` records.
        fail_fast: stop everything at the first failed cell.
    """

    def __init__(
        self,
        program: Path,
        places: Sequence[str | None],
        display: Display,
        write_failure: WriteFailure,
        fail_fast: bool = False,
    ) -> None:
        self.program, self.display, self.fail_fast = program, display, fail_fast
        self.write_failure = write_failure
        self.free = list(places)
        self.running: list[Worker] = []
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.summary = Summary()
        self.stopping = False
        self.signals: deque[int] = deque()

    def run(self, jobs: Sequence[Job]) -> Summary:
        """Run all jobs; returns when the last worker has ended."""
        waiting = deque(enumerate(jobs))
        # The handler only notes the signal: it may interrupt a line that is being printed, and then nothing can be printed.
        with _handling(lambda number, frame: self.signals.append(number)):
            try:
                while self.running or (waiting and not self.stopping):
                    while self.signals:
                        self._on_signal(self.signals.popleft())
                    while waiting and self.free and not self.stopping and not self.signals:
                        self._start(*waiting.popleft())
                    with contextlib.suppress(queue.Empty):
                        self._receive(*self.messages.get(timeout=0.2))
            finally:
                self._signal_all(signal.SIGKILL)
        return self.summary

    def _start(self, number: int, job: Job) -> None:
        place = self.free.pop(0)
        command = [sys.executable, str(self.program), "worker", "--plan", str(job.path), "--shard", str(job.number)]
        with _opened(job.log) as log:
            process = subprocess.Popen(
                [*command, "--events"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | environment(job.plan.protocol.numerics.threads, place),
                # A session of its own: Ctrl-C reaches this process only, which passes it on once.
                start_new_session=True,
            )
        worker = Worker(number, job, process, place)
        self.running.append(worker)
        self.display.started(number)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self.messages.put((worker, line))
        worker.process.wait()
        self.messages.put((worker, None))

    def _receive(self, worker: Worker, line: str | None) -> None:
        if line is None:
            self._ended(worker)
            return
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            return
        if not isinstance(event, dict):  # a library's own printing
            return
        self.display.event(worker.number, event)
        kind = event.get("event")
        if kind == "error":
            worker.error = event["message"]
        elif kind == "warning":
            self._warn(event["message"])
        elif kind in ("cell_done", "cell_not_applicable", "cell_failed"):
            cell = CellKey.model_validate(event["cell"])
            worker.finished.add(cell.cell_id)
            if kind == "cell_failed":
                self._failed(cell, event.get("reason", ""))

    def _warn(self, message: str) -> None:
        if message not in self.summary.warnings:
            self.summary.warnings.append(message)

    def _failed(self, cell: CellKey, reason: str) -> None:
        self.summary.failed[cell.cell_id] = (cell, reason)
        if self.fail_fast and not self.stopping:
            self.display.say("A cell failed; stopping the others (--fail-fast).")
            self._stop()

    def _ended(self, worker: Worker) -> None:
        self.running.remove(worker)
        self.free.insert(0, worker.place)
        code = worker.process.returncode
        stopped = code != 0 and (code == INTERRUPTED or self.stopping)
        if code == 0:
            how = "done" if not self._failures_of(worker.job) else "ended with failed cells"
        elif stopped:
            # Without our doing: somebody else asked this worker to stop.
            self.summary.interrupted |= not self.stopping
            how = "stopped"
        elif code == BAD_INPUT and worker.error:
            self.summary.errors.append(worker.error)
            how = worker.error
        else:
            how = self._died(worker, code)
        self.display.ended(worker.number, how, complete=not stopped)

    def _failures_of(self, job: Job) -> list[CellKey]:
        return [cell for cell in job.cells if cell.cell_id in self.summary.failed]

    def _died(self, worker: Worker, code: int) -> str:
        reason = death(code, worker.job.log)
        lost = [cell for cell in worker.job.cells if cell.cell_id not in worker.finished]
        try:
            self.write_failure(worker.job, lost, reason)
        except DiskError as error:
            self.summary.errors.append(str(error))
        for cell in lost:
            self._failed(cell, reason)
        return reason

    def _on_signal(self, number: int) -> None:
        if self.stopping and number == signal.SIGINT:
            self._signal_all(signal.SIGKILL)
            return
        self.summary.interrupted = True
        self.display.say("Stopping: workers finish their epoch and leave a checkpoint. Ctrl-C again stops at once.")
        self._stop()

    def _stop(self) -> None:
        self.stopping = True
        self._signal_all(signal.SIGINT)

    def _signal_all(self, number: int) -> None:
        for worker in self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.process.pid, number)


def death(code: int, log: Path) -> str:
    """Why a worker ended, as a sentence."""
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        hint = " (often: the machine ran out of memory)" if name == "SIGKILL" else ""
        return f"the worker was ended by {name}{hint}; its output is in {log}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    last = f": {lines[-1].strip()}" if lines else ""
    return f"the worker ended with code {code}{last}; its output is in {log}"


def _opened(log: Path) -> IO[str]:
    """The file, or nowhere to write to: a full disk must not end the workers that run."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "w", encoding="utf-8")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def places_for(device: str, workers: int | None, cuda_devices: int) -> tuple[str, list[str | None]]:
    """The device of the plan, and one place per worker: by default one per core on the CPU, one per device on CUDA.

    Args:
        device: ``cpu``, ``cuda`` (all devices) or ``cuda:1``.
        workers: at once, None = the default.
        cuda_devices: how many CUDA devices can be seen.

    Raises:
        ProtocolError: no such device.
    """
    if device == "cpu":
        return "cpu", [None] * (workers or _cores())
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise ProtocolError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if cuda_devices == 0:
        raise ProtocolError(f"device {device!r} cannot be used: PyTorch sees no CUDA device here; take --device cpu")
    if index and int(index) >= cuda_devices:
        raise ProtocolError(f"device {device!r} does not exist; the last one is cuda:{cuda_devices - 1}")
    # Inside a restricted environment the first visible device may be the machine's third.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(str(number) for number in range(cuda_devices))
    names = visible.split(",")
    chosen = [names[int(index)]] if index else names[:cuda_devices]
    return "cuda", [chosen[number % len(chosen)] for number in range(workers or len(chosen))]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

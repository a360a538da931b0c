"""A process that has imported everything and forks itself for each command: a fault then costs a fraction of a second, not twenty.

What a fork runs is the command line's own code, from ``main`` on; the local executor forks its workers instead of starting an
interpreter. The same faults are tested with real commands as well, a few of them.

Reads one request per line from standard input, answers one line of JSON each: ``{"pid": n}`` when started, ``{"pid": n, "status": s}``
when ended.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import run_benchmark  # noqa: E402

IMPORTED = (
    "matplotlib.figure", "rich.console", "sklearn.datasets", "sklearn.mixture", "nocobench.analysis.commands", "nocobench.analysis.figures",
    "nocobench.analysis.tables", "nocobench.protocols.checking", "nocobench.protocols.commands", "nocobench.protocols.engine",
)  # fmt: skip


def warm_up() -> None:
    """Import what commands import, but start no thread and compute nothing."""
    for name in IMPORTED:
        importlib.import_module(name)
    import torch
    from nocobench.protocols import recording
    from nocobench.protocols.commands import sources_today

    torch.use_deterministic_algorithms(True)  # imports half of PyTorch
    for method in ("ncr", "npc", "cca", "clip"):
        sources_today(method, "pair-retrieval")
    recording._git()  # kept: asking git costs every worker a tenth of a second


def become(
    words: Sequence[str], output: int, errors: int, fault: Mapping[str, Any] | None, env: Mapping[str, str]
) -> None:
    """Be that command, in a session of its own, and end as it ends. Never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.closerange(3, 4096)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(env)
        sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.FileIO(1, "wb", closefd=False))
        sys.stderr = sys.__stderr__ = io.TextIOWrapper(io.FileIO(2, "wb", closefd=False), line_buffering=True)
        sys.argv = [str(ROOT / "run_benchmark.py"), *words]
        _fork_workers(fault)
        if fault is not None:
            from faults import hook

            hook.install(dict(fault), list(words))
        code = run_benchmark.main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class Forked:
    """As much of ``subprocess.Popen`` as the local executor uses."""

    fault: Mapping[str, Any] | None = None

    def __init__(self, command: Sequence[str], *, stderr: IO[str], env: Mapping[str, str], **_: Any) -> None:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            become(command[2:], writing, stderr.fileno(), self.fault, env)
        os.close(writing)
        self.stdout = os.fdopen(reading, "r")

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _fork_workers(fault: Mapping[str, Any] | None) -> None:
    from nocobench.protocols import local

    Forked.fault = fault
    local.subprocess = types.SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)


def serve() -> None:
    warm_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    running = 0
    buffer = b""
    while True:
        if select.select([0], [], [], 0.02 if running else None)[0]:
            more = os.read(0, 1 << 16)
            if not more:
                os._exit(0)
            *lines, buffer = (buffer + more).split(b"\n")
            for line in lines:
                request = json.loads(line)
                output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                pid = os.fork()
                if pid == 0:
                    become(request["words"], output, output, request["fault"], dict(os.environ))
                os.close(output)
                running += 1
                print(json.dumps({"pid": pid}), file=answers, flush=True)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            running -= 1
            print(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    serve()

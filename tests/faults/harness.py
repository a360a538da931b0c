"""Commands that are disturbed, and what must be true of a results folder afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from faults import hook
from nocobench.protocols.contract_checks import small_protocol
from nocobench.protocols.worker import environment
from nocobench.results.record import RunRecord
from nocobench.results.store import RecordStore, check_store

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "run_benchmark.py"
LIMIT = 120.0  # seconds a command may take; a machine under load needs some


def write_protocol(folder: Path) -> Path:
    """A protocol whose cells train in a fraction of a second: 120 images with two captions each, 6 epochs."""
    path = folder / "faults.yaml"
    content = small_protocol(name="faults").model_dump(mode="json")
    content["budget"]["epochs"] = 6
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Grid:
    """What a command computes; ``words`` are those of the command line besides the results folder."""

    protocol: Path
    methods: tuple[str, ...] = ("clip", "cca")
    seeds: tuple[int, ...] = (0, 1)
    more: tuple[str, ...] = ("--noise", "0.4", "--checkpoint-every", "0", "--workers", "1")

    @property
    def cells(self) -> int:
        return len(self.methods) * len(self.seeds)

    def words(self, results: Path, *extra: str) -> list[str]:
        seeds = map(str, self.seeds)
        what = ["--methods", *self.methods, "--protocol", str(self.protocol), "--seeds", *seeds, "--device", "cpu"]
        return [*what, *self.more, *extra, "--results", str(results)]


@dataclass
class Running:
    """A command that was started; ``output`` holds what it prints."""

    server: Forks
    pid: int
    output: Path

    def __post_init__(self) -> None:
        self.handle = os.pidfd_open(self.pid)  # a number may belong to another process later, a handle cannot

    def send(self, number: int) -> None:
        """A signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, number)

    def wait(self, seconds: float = LIMIT) -> int:
        """Its exit code, negative for a signal; a command that hangs fails the test."""
        return self.server.wait(self, seconds)

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """Its workers that live now."""
        found: list[int] = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
        return found

    def kill(self) -> int:
        """SIGKILL to the command and all its workers, as a machine that goes down."""
        workers = self.workers()
        self.send(signal.SIGKILL)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.wait()


@dataclass
class Forks:
    """The client of forkserver.py."""

    scratch: Path
    ended: dict[int, int] = field(default_factory=dict)
    started: int = 0

    def __post_init__(self) -> None:
        env = os.environ | environment(1, None) | {"NOCOBENCH_DEBUG": ""}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forkserver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.scratch / "forkserver.log", "w"),  # noqa: SIM115
            text=True,
            env=env,
        )
        assert self._answer().get("ready"), (self.scratch / "forkserver.log").read_text()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the fork server ended: " + (self.scratch / "forkserver.log").read_text()
        return json.loads(line)

    def start(
        self, words: Sequence[str], fault: Mapping[str, Any] | None = None, output: Path | None = None
    ) -> Running:
        """Start a command, with a fault in it or in one of its workers (see hook.py); what it prints goes to a file."""
        self.started += 1
        output = output or self.scratch / f"output-{self.started}.txt"
        assert self.process.stdin is not None
        request = {"words": list(words), "fault": fault, "output": str(output)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        while True:
            answer = self._answer()
            if "status" not in answer:
                return Running(self, answer["pid"], output)
            self.ended[answer["pid"]] = answer["status"]

    def run(self, words: Sequence[str], fault: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Exit code and output of a command."""
        running = self.start(words, fault)
        return running.wait(), running.text

    def wait(self, running: Running, seconds: float) -> int:
        until = time.monotonic() + seconds
        while running.pid not in self.ended:
            assert time.monotonic() < until, f"still running after {seconds:g} s:\n{running.text}"
            answer = self._answer()
            self.ended[answer["pid"]] = answer["status"]
        os.close(running.handle)
        return self.ended.pop(running.pid)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


class Runner(Protocol):
    """Whatever runs commands with a fault in them."""

    def run(self, words: Sequence[str], fault: Mapping[str, Any] | None = None) -> tuple[int, str]: ...


class Commands:
    """Real commands; the fault comes in as ``sitecustomize``, which lies in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        shutil.copyfile(HERE / "hook.py", folder / "sitecustomize.py")
        self.env = os.environ | {"PYTHONPATH": str(folder)}

    def run(self, words: Sequence[str], fault: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Exit code and output of a command."""
        env = self.env | ({} if fault is None else {hook.VARIABLE: json.dumps(fault)})
        with tempfile.TemporaryFile("w+") as output:  # not a pipe: an orphaned worker would keep it open
            command = [sys.executable, str(PROGRAM), *words]
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=env, timeout=LIMIT)
            output.seek(0)
            return done.returncode, output.read()


def outcomes(results: Path) -> dict[str, str]:
    """Outcome digests by cell, of every finished record; a file that is no whole record fails the test."""
    found = list(RecordStore(results / "runs").scan())
    broken = [record.reason for record in found if not isinstance(record, RunRecord)]
    assert broken == []
    return {r.cell_id: r.outcome_digest for r in found if isinstance(r, RunRecord) and r.status == "done"}


def litter(results: Path) -> list[str]:
    """Whatever lies in a results folder besides records, their arrays, old versions of them, snapshots and figures."""
    found = []
    for path in sorted(results.rglob("*")):
        place = path.relative_to(results)
        whole = not path.name.startswith(".") and path.suffix in (".json", ".npz", ".old", ".png", ".svg")
        if path.is_file() and not (whole and place.parts[0] in ("runs", "figures")):
            found.append(str(place))
    return found


def assert_clean(results: Path) -> None:
    """No half record, no lock, plan, checkpoint or temporary file."""
    assert litter(results) == []
    assert check_store(results / "runs") == []


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "64k", inodes: int = 200) -> Iterator[Path]:
    """A file system of its own on ``folder``; skips where nobody lets us mount one."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"needs a file system of its own, and mount cannot be run ({error.strerror})")
    if done.returncode:
        pytest.skip(f"needs a file system of its own, and mount says: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """``ro``, ``rw``, ``size=...``."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

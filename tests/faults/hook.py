"""Faults put into a process from outside: it is ended at a chosen call of a chosen function, or its clock jumps.

Nothing of the suite knows of this. A process that the tests fork calls :func:`install`; one that they start as a command finds this file as
its ``sitecustomize`` and the fault in the variable ``NOCOBENCH_TEST_FAULT``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

VARIABLE = "NOCOBENCH_TEST_FAULT"
Fault = dict[str, Any]
# What changes a folder, as Python's audit events name it.
CHANGES = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate")


def install(fault: Fault, words: list[str]) -> None:
    """Arm a fault in this process if it is meant for it.

    Keys of ``fault``:

    - ``role``: ``worker`` or ``command``; ``shard``: only the worker of that shard;
    - ``point``: ``module:attribute``, or ``change`` (any change of a folder), or ``half`` (while a file is being written);
    - ``call``: which call (1 = the first), ``when``: ``before`` or ``after`` it;
    - ``signal``; ``to``: ``self``, or from a worker ``command`` (to the command that started it) or ``all`` (to both);
    - ``under``: for ``change`` and ``half``, only paths that contain this;
    - ``count``: instead of a signal, write the number of calls so far to this file;
    - ``slot``: instead of a signal, make the parameters of that run NaN (``point`` is then a method of the training);
    - ``until_gone``: instead of a signal, wait there until the process of this number has ended;
    - ``clock``: seconds by which the clock is wrong, one after the other at each look at it; alone or with a ``point``.
    """
    role = "worker" if "worker" in words[:1] else "command"
    if fault.get("role", role) != role:
        return
    if "shard" in fault and words[words.index("--shard") + 1] != str(fault["shard"]):
        return
    if "clock" in fault:
        _set_clock(fault["clock"])
    if "point" not in fault:
        return
    if fault["point"] == "change":
        _on_changes(fault)
    elif fault["point"] == "half":
        _on_half(fault)
    else:
        module, _, attribute = fault["point"].partition(":")
        _after_import(module, lambda found: _wrap(found, attribute, fault))


def _strike(fault: Fault) -> Callable[..., None]:
    """What is called at every pass of the point; acts at the chosen one."""
    passes = 0

    def at(*args: Any) -> None:
        nonlocal passes
        passes += 1
        if "count" in fault:
            Path(fault["count"]).write_text(str(passes))
        elif passes == fault.get("call", 1):
            while "until_gone" in fault and Path(f"/proc/{fault['until_gone']}").exists():
                time.sleep(0.01)
            if "until_gone" in fault:
                return
            if "slot" in fault:
                _make_nan(args[0], fault["slot"])
                return
            to = fault.get("to", "self")
            for pid in {"self": [os.getpid()], "command": [os.getppid()], "all": [os.getppid(), os.getpid()]}[to]:
                os.kill(pid, fault["signal"])

    return at


def _wrap(module: types.ModuleType, attribute: str, fault: Fault) -> None:
    *path, last = attribute.split(".")
    owner: Any = functools.reduce(getattr, path, module)
    original, strike = getattr(owner, last), _strike(fault)

    @functools.wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        if fault.get("when", "before") == "before":
            strike(*args)
            return original(*args, **options)
        result = original(*args, **options)
        strike(*args)
        return result

    setattr(owner, last, wrapped)


def _on_changes(fault: Fault) -> None:
    strike = _strike(fault)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if (
            event not in CHANGES
            or not isinstance(args[0], str | os.PathLike)
            or fault["under"] not in os.fspath(args[0])
        ):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        if "count" not in fault or os.fspath(args[0]) != fault["count"]:
            strike()

    sys.addaudithook(hear)


def _on_half(fault: Fault) -> None:
    """The file of the chosen flush keeps only half of what was written, as if the process had ended in the middle of it."""
    flush, strike = os.fsync, _strike(fault)
    passes = 0

    def half(handle: int) -> None:
        nonlocal passes
        name = os.readlink(f"/proc/self/fd/{handle}")
        if fault["under"] in name and not os.path.isdir(name):
            passes += 1
            if passes == fault.get("call", 1):
                os.truncate(name, os.path.getsize(name) // 2)
            strike()
        flush(handle)

    os.fsync = half


def _make_nan(training: Any, slot: int) -> None:
    for params in training.driver.params.values():
        for value in params.values():
            value[slot] = float("nan")


def _set_clock(jumps: list[float]) -> None:
    """The clock on the wall is wrong, by another amount at each look; the monotonic one is not, because no system lets it jump."""
    import datetime

    looks = 0
    real, local = time.time, time.localtime

    def now() -> float:
        nonlocal looks
        looks += 1
        return max(real() + jumps[looks % len(jumps)], 0.0)

    class Date(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromtimestamp(now(), tz)

    time.time = now
    time.localtime = lambda seconds=None: local(now() if seconds is None else seconds)
    # Libraries compare with the class itself: only what the suite looks at is exchanged.
    names = {name: getattr(datetime, name) for name in dir(datetime) if not name.startswith("_")}
    fake = types.SimpleNamespace(**(names | {"datetime": Date}))
    _after_import("nocobench.protocols.recording", lambda module: setattr(module, "datetime", fake))


def _after_import(name: str, change: Callable[[types.ModuleType], None]) -> None:
    """Apply a change to a module now, or as soon as somebody imports it."""
    if name in sys.modules:
        change(sys.modules[name])
    elif name.split(".")[0] in sys.builtin_module_names or not name.startswith(("nocobench", "matplotlib")):
        change(importlib.import_module(name))
    else:
        sys.meta_path.insert(0, _Watching(name, change))


class _Watching(MetaPathFinder, Loader):
    def __init__(self, name: str, change: Callable[[types.ModuleType], None]) -> None:
        self.name, self.change, self.busy = name, change, False
        self.loader: Any = None

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.name or self.busy:
            return None
        with self._looking():
            spec = importlib.util.find_spec(name)
        if spec is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        self.loader.exec_module(module)
        self.change(module)


if os.environ.get(VARIABLE):
    # Started as a command: what follows the program's name is known from the system only, Python has not read it yet.
    command = Path("/proc/self/cmdline").read_bytes().decode().split("\0")[1:-1]
    program = next((place for place, word in enumerate(command) if word.endswith("run_benchmark.py")), None)
    if program is not None:
        install(json.loads(os.environ[VARIABLE]), command[program + 1 :])

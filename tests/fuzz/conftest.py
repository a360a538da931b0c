"""Counts what was tried, and says so at the end; nothing that a test is given may leave a trace outside of its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz import counting
from fuzz.canary import CANARY
from fuzz.child import Child


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test works in an empty folder of its own; no pickle was loaded in it, and nothing was written beside it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("NOCOBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NOCOBENCH_DEBUG", raising=False)
    before = {path.name for path in tmp_path.iterdir()}
    yield inside
    assert not (inside / CANARY).exists(), "a pickle was loaded"
    assert {path.name for path in tmp_path.iterdir()} <= before | {"cache"}, "something was written outside"


@pytest.fixture(scope="session")
def child() -> Iterator[Child]:
    """A process with little memory, in which files are read that might take it or end it."""
    with Child() as running:
        yield running


def pytest_terminal_summary(terminalreporter: Any) -> None:
    found = counting.report()
    if not found["inputs"] or hasattr(terminalreporter.config, "workeroutput"):
        return
    terminalreporter.section("fuzzing")
    for kind, count in found["tried"].items():
        terminalreporter.write_line(f"{count:8,}  {kind}")
    terminalreporter.write_line(f"inputs tried: {found['inputs']:,}, crashes: {len(found['crashes']):,}")
    for crash, what in found["crashes"].items():
        terminalreporter.write_line(f"  {crash} {what}")
    if os.environ.get("NOCOBENCH_FUZZ_JSON"):
        Path(os.environ["NOCOBENCH_FUZZ_JSON"]).write_text(json.dumps(found, indent=1) + "\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["fuzz"] = counting.report()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    counting.merge(getattr(node, "workeroutput", {}).get("fuzz", {"tried": {}, "crashes": {}}))

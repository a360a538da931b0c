"""Counts faults and lost cells over a whole run of the tests, also when several processes share them (pytest-xdist)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "NOCOBENCH_FAULTS_JSON"


@dataclass
class Ledger:
    """What one test did; it travels with the test's report."""

    properties: list[tuple[str, Any]]

    def fault(self, kind: str, times: int = 1) -> None:
        """A fault was injected, and it struck."""
        self.properties.append(("fault", [kind, times]))

    def compare(self, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
        """Digests of outcomes of an undisturbed run against those after the fault; a cell that is missing or differs is lost.

        Raises:
            AssertionError: cells were lost, or there are some that nobody asked for.
        """
        lost = sorted(cell for cell, digest in expected.items() if found.get(cell) != digest)
        self.properties.append(("cells", [len(expected), len(lost)]))
        assert lost == []
        assert found.keys() == expected.keys()


def summary(terminalreporter: Any) -> dict[str, Any]:
    """Faults by kind, cells compared and lost, of all tests that have reported."""
    faults: Counter[str] = Counter()
    compared = lost = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if name == "fault":
                    faults[value[0]] += value[1]
                elif name == "cells":
                    compared, lost = compared + value[0], lost + value[1]
    return {
        "faults_injected": sum(faults.values()),
        "cells_compared": compared,
        "cells_lost": lost,
        "faults": dict(sorted(faults.items())),
    }


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line, and JSON where ``NOCOBENCH_FAULTS_JSON`` names a file."""
    found = summary(terminalreporter)
    if not found["faults_injected"]:
        return
    text = "faults injected: {faults_injected}, cells compared: {cells_compared}, cells lost: {cells_lost}"
    terminalreporter.write_line(text.format(**found))
    if os.environ.get(VARIABLE):
        Path(os.environ[VARIABLE]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

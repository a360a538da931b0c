"""How many inputs were tried, and which of them broke a promise."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings

# NOCOBENCH_FUZZ=50 tries fifty times as many inputs, others every time; without it the same few are tried everywhere.
TIMES = int(os.environ.get("NOCOBENCH_FUZZ", "1"))

tried: Counter[str] = Counter()
# The first input of each kind of crash: hypothesis comes back to the same one many times to make it small.
crashes: dict[str, str] = {}


def fuzzing(examples: int) -> settings:
    """Settings of a test that tries so many inputs in a quick run."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def attempt(kind: str, what: Any = "") -> Iterator[None]:
    """One input of a kind. Whatever comes out of the block is a crash: users would see it as one."""
    tried[kind] += 1
    try:
        yield
    except BaseException as error:
        crashes.setdefault(f"{kind}: {type(error).__name__}: {error}"[:500], str(what)[:500])
        raise


def merge(other: dict[str, Any]) -> None:
    """Add what another process has counted."""
    tried.update(other["tried"])
    crashes.update(other["crashes"])


def report() -> dict[str, Any]:
    """All counts, JSON-ready."""
    return {"inputs": sum(tried.values()), "crashes": dict(crashes), "tried": dict(sorted(tried.items()))}

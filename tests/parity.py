"""The harness of the parity tests: an oracle file, and the registry of the functions that check our code against one.

An oracle is ``<stem>.npz`` with arrays ``in_*`` (what official code was given) and ``out_*`` (what it returned), and ``<stem>.json`` with
the source and the tolerance. A consumer reads sizes and seeds from the arrays, never from its own text: the same files with other
shapes and seeds must pass as well. Modules ``parity_*.py`` beside this one hold the consumers; ``test_parity.py`` runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

# A file with one of these prefixes (before the double underscore) must be consumed.
PREFIXES = (
    "clip", "ncr", "npc", "mwn", "retrieval_metrics",
    "rshnl", "mgsh", "nrch", "mrl", "nirnl", "ucch", "hcch", "map_metrics", "noise_labels",
)  # fmt: skip

# "Exact" for numbers with a fraction: 100 * (k / n) and 100 * k / n may round apart in the last bits.
SAME_NUMBER = 8 * float(np.finfo(np.float64).eps)

Consumer = Callable[["Oracle"], None]
CONSUMERS: dict[str, Consumer] = {}


def consumes(*stems: str) -> Callable[[Consumer], Consumer]:
    """Declare the function that checks the oracle files of these names.

    Raises:
        ValueError: two consumers for one file, or a prefix that is not in ``PREFIXES``.
    """

    def declare(consumer: Consumer) -> Consumer:
        for stem in stems:
            if stem in CONSUMERS:
                raise ValueError(f"{stem} has two consumers: {CONSUMERS[stem].__name__} and {consumer.__name__}")
            if stem.split("__")[0] not in PREFIXES:
                raise ValueError(f"{stem}: prefix unknown; add it to PREFIXES in tests/parity.py")
            CONSUMERS[stem] = consumer
        return consumer

    return declare


class Oracle:
    """One oracle file, and the account of which of its results were checked.

    A mismatch is collected, not raised, so that one run shows all of them; :meth:`finish` raises.

    Args:
        stem: name of the file.
        arrays: its arrays.
        tolerance: the tolerance text of its JSON file, such as ``loss rtol 1e-9, prob rtol 1e-5, indices exact``; a number alone
            (``1e-10``) is meant both relatively and absolutely.
        constants: what the official code had fixed, from the JSON file.
    """

    def __init__(
        self, stem: str, arrays: dict[str, np.ndarray], tolerance: str, constants: dict[str, Any] | None = None
    ) -> None:
        self.stem = stem
        self.constants = constants or {}
        self.arrays = arrays
        self.text = tolerance
        self.failures: dict[str, str] = {}
        self.waived: dict[str, str] = {}
        self._checked: set[str] = set()
        self._parts: dict[str, set[int]] = {}

    @classmethod
    def load(cls, path: Path) -> Oracle:
        """Read ``path`` (.npz) and the JSON file beside it."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = json.loads(path.with_suffix(".json").read_text())
        tolerance = facts["tolerance"]
        if isinstance(tolerance, dict):
            tolerance = ", ".join(f"{kind} {value}" for kind, value in tolerance.items() if kind in ("rtol", "atol"))
        return cls(path.stem, arrays, tolerance, facts.get("constants"))

    @property
    def names(self) -> list[str]:
        """Names of all arrays."""
        return list(self.arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        """An input array; results are only compared, never read."""
        if not name.startswith("in_"):
            raise AssertionError(f"{self.stem}: {name} is a result; compare with check()")
        return self.arrays[name]

    def get(self, name: str, default: Any) -> Any:
        """An input array, or the default where the file has none."""
        return self[name] if name in self.arrays else default

    def inputs(self, pattern: str) -> Iterator[re.Match[str]]:
        """Matches of a regular expression with whole names of input arrays, to discover suffixes such as noise rates."""
        return (match for name in self.arrays if (match := re.fullmatch(pattern, name)))

    def check(
        self,
        name: str,
        value: Any,
        *,
        at: int | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        exact: bool = False,
    ) -> None:
        """Compare ``value`` with the result ``name`` (with its entry ``at``, all of which must be checked in the end).

        The tolerance is the first of each kind in the JSON text; a consumer may name another one of that text, never a looser one.
        Integers and booleans are compared exactly, and so are shapes.
        """
        expected = self.arrays[name] if at is None else self.arrays[name][at]
        actual = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        exact = exact or expected.dtype.kind in "biu"
        bounds = (SAME_NUMBER, 0.0) if exact else self._bounds(expected, rtol, atol)
        self._note(name, at, _difference(actual, expected, *bounds))

    def check_between(self, name: str, low: Any, high: Any) -> None:
        """The result must lie between two of ours: for values that the official code leaves to chance."""
        low, high, expected = np.asarray(low), np.asarray(high), self.arrays[name]
        # Official numbers may be float32.
        slack = 1e-6 * np.maximum(np.abs(expected), 1)
        inside = low.shape == expected.shape and bool(np.all((expected >= low - slack) & (expected <= high + slack)))
        self._note(name, None, None if inside else f"{expected} is not between {low} and {high}")

    def check_equivalent(self, name: str, accepts: Callable[[np.ndarray], bool]) -> None:
        """``accepts`` decides on the result: for choices that are free among equals."""
        self._note(name, None, None if accepts(self.arrays[name]) else "not equivalent to ours")

    def waive(self, name: str, reason: str) -> None:
        """Leave a result unchecked, for a stated reason."""
        if not reason:
            raise AssertionError(f"{self.stem}: waiving {name} needs a reason")
        self.waived[name] = reason

    def unchecked(self) -> list[str]:
        """Results that were neither checked (in every entry) nor waived."""
        complete = {name for name, parts in self._parts.items() if parts == set(range(len(self.arrays[name])))}
        results = {name for name in self.arrays if name.startswith("out_")}
        return sorted(results - self._checked - complete - set(self.waived))

    def finish(self) -> None:
        """Raise for mismatches and for results that nobody looked at."""
        lines = [f"{name}: {message}" for name, message in self.failures.items()]
        lines += [f"{name}: no consumer checked it" for name in self.unchecked()]
        if lines:
            raise AssertionError("\n".join([f"{self.stem} ({self.text})", *lines]))

    def corrupted(self) -> Oracle:
        """The same inputs with wrong results, to prove that a consumer notices."""
        wrong = {name: _corrupt(array) if name.startswith("out_") else array for name, array in self.arrays.items()}
        return Oracle(self.stem, wrong, self.text, self.constants)

    def _bounds(self, expected: np.ndarray, rtol: float | None, atol: float | None) -> tuple[float, float]:
        named_rtol, named_atol = _stated(self.text)
        for kind, value, allowed in (("rtol", rtol, named_rtol), ("atol", atol, named_atol)):
            if value is not None and value > max(allowed, default=0.0):
                raise AssertionError(f"{self.stem}: {kind} {value} is looser than {self.text!r}")
        relative = rtol if rtol is not None else next(iter(named_rtol), SAME_NUMBER)
        if atol is not None:
            return relative, atol
        # An entry that nearly cancels carries the rounding error of the large terms it was made of.
        scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
        rounding = max(1e-3 * relative, 64 * np.finfo(np.float64).eps) * scale
        return relative, max(rounding if relative > SAME_NUMBER else 0.0, next(iter(named_atol), 0.0))

    def _note(self, name: str, at: int | None, message: str | None) -> None:
        if at is None:
            self._checked.add(name)
        else:
            self._parts.setdefault(name, set()).add(at)
        if message is not None:
            self.failures.setdefault(name, message if at is None else f"at {at}: {message}")


def _stated(text: str) -> tuple[list[float], list[float]]:
    """The numbers behind ``rtol`` and those behind ``atol`` or before ``absolute``, in order."""
    number = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
    relative = [float(x) for x in re.findall(rf"rtol {number}", text)]
    absolute = [float(a or b) for a, b in re.findall(rf"atol {number}|{number} absolute", text)]
    bare = [float(x) for x in re.findall(r"(?<![\w.])(?<!rtol )(?<!atol )(\d+(?:\.\d+)?e-\d+)(?! absolute)", text)]
    return relative + bare, absolute + bare


def _difference(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> str | None:
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, expected {expected.shape}"
    actual, expected = (x if x.dtype.kind in "biu" else x.astype(np.float64) for x in (actual, expected))
    integers = actual.dtype.kind in "biu" and expected.dtype.kind in "biu"
    close = actual == expected if integers else np.isclose(actual, expected, rtol, atol, equal_nan=True)
    if np.all(close):
        return None
    where = np.unravel_index(int(np.argmin(close)), close.shape)
    place = f"[{', '.join(map(str, where))}]" if where else ""
    wrong = close.size - np.count_nonzero(close)
    return f"{wrong} of {close.size} differ, first {place} {actual[where]} against {expected[where]} (rtol {rtol}, atol {atol})"


def _corrupt(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array + 1000 * (1 + np.abs(array))
    reverse = array[::-1] if array.ndim else array
    if not np.array_equal(reverse, array):
        return reverse.copy()
    return ~array if array.dtype.kind == "b" else array + 1

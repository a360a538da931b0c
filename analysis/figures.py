"""All figures, by kind: from a frame of records to files, and a sentence for each kind that the records hold nothing for."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from .curves import draw_auc, draw_scores, draw_validation
from .densities import draw_signal_densities, draw_similarity_densities
from .diagrams import draw_critical_difference
from .frame import AnalysisError
from .precision_recall import draw_precision_recall
from .profiles import draw_performance_profiles
from .stored import StoredRun, load_runs


class Material:
    """What is drawn from; ``say`` hears of records that cannot be used."""

    def __init__(self, frame: pd.DataFrame, say: Callable[[str], None]) -> None:
        self.frame, self.say = frame, say
        broken = frame.attrs.get("broken", ())
        if broken:
            say(f"{len(broken)} files are left out, the first one because {broken[0][1]}")

    @cached_property
    def runs(self) -> list[StoredRun]:
        """Finished runs."""
        return load_runs(self.frame)

    @cached_property
    def with_arrays(self) -> list[StoredRun]:
        """Finished runs whose sidecar can be read."""
        good, bad = [], []
        for run in self.runs:
            try:
                _ = run.arrays
                good.append(run)
            except AnalysisError as error:
                bad.append(str(error))
        if bad:
            self.say(f"densities are without {len(bad)} of {len(self.runs)} runs, the first one because {bad[0]}")
        return good


@dataclass(frozen=True)
class Kind:
    """One kind of figure: how it is drawn, what records must have for it, and for which task it is (None = all)."""

    draw: Callable[[Material, Path], list[Path]]
    needs: str
    task: str | None = None


def _signal(signal: str) -> Kind:
    words = signal.replace("_", " ")
    return Kind(
        lambda material, folder: draw_signal_densities(material.with_arrays, folder, signal),
        f"no method here logs a {words} where it is known which pairs are noisy",
    )


KINDS: dict[str, Kind] = {
    "weight-density": _signal("weight"),
    "clean-probability-density": _signal("clean_probability"),
    "loss-density": _signal("loss"),
    "similarity-density": Kind(
        lambda material, folder: draw_similarity_densities(material.with_arrays, folder),
        "no run here has similarities of clean and noisy pairs, which real noise cannot have",
        "pair-retrieval",
    ),
    "rsum-vs-noise": Kind(lambda material, folder: draw_scores(material.runs, folder), "no run here is finished"),
    "validation-curves": Kind(lambda material, folder: draw_validation(material.runs, folder), "no run here is finished"),
    "precision-recall": Kind(
        lambda material, folder: draw_precision_recall(material.with_arrays, folder),
        "only runs of label-based retrieval have such curves",
        "label-hashing",
    ),
    "auc-curves": Kind(
        lambda material, folder: draw_auc(material.runs, folder),
        "no run here has both clean and noisy pairs under a logged weight, clean probability or loss",
    ),
    "critical-difference": Kind(
        lambda material, folder: draw_critical_difference(material.frame, folder),
        "ranks need three methods with runs in the same two blocks (a block is a noise rate of a data set) of one protocol",
    ),
    "performance-profile": Kind(
        lambda material, folder: draw_performance_profiles(material.frame, folder),
        "a profile needs two methods of one protocol with finished runs and scores above zero",
    ),
}  # fmt: skip


# The same kinds by their names in label-based retrieval.
ALIASES = {"map-vs-noise": "rsum-vs-noise", "map-curves": "validation-curves"}


def chosen_kinds(names: Sequence[str] | None) -> list[str]:
    """The kinds of those names, in our order; all for None.

    Raises:
        AnalysisError: unknown name, with the nearest known one.
    """
    names = None if names is None else [ALIASES.get(name, name) for name in names]
    for name in names or ():
        if name not in KINDS:
            close = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(KINDS)}"
            raise AnalysisError(f"unknown kind of figure {name!r}; {hint}")
    return [name for name in KINDS if names is None or name in names]


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def draw_all(
    frame: pd.DataFrame,
    folder: Path,
    kinds: Sequence[str] | None = None,
    say: Callable[[str], None] = _tell,
) -> list[Path]:
    """Draw into the folder and name the files.

    Args:
        frame: as :func:`.frame.load_frame` gives it.
        folder: made where it does not exist; files of the same name are replaced.
        kinds: names of :data:`KINDS`; None draws all.
        say: takes a sentence for each kind that could not be drawn, and for records left out.

    Raises:
        AnalysisError: unknown kind, or nothing could be drawn.
    """
    names = chosen_kinds(kinds)
    material = Material(frame, say)
    paths: list[Path] = []
    missing: list[str] = []
    if kinds is None:  # what belongs to other tasks than these records was not asked for
        names = [name for name in names if KINDS[name].task in (None, *frame["task"])]
    for name in names:
        found = KINDS[name].draw(material, folder)
        paths += found
        if not found:
            missing.append(f"no {name} figure: {KINDS[name].needs}")
    if not paths:
        raise AnalysisError(
            "; ".join(missing) if len(missing) < len(names) or kinds else "no run here is finished; nothing to draw"
        )
    for sentence in missing:
        say(sentence)
    return paths

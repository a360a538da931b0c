"""How figures look: one colour, dash and marker per method wherever it appears; files with the same bytes for the same records."""

from __future__ import annotations

import contextlib
import hashlib
import io
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..results.files import write_atomic

# Okabe and Ito 2008 without yellow (too faint as a line), then three of Paul Tol's "muted" scheme: distinguishable with the common
# colour-vision deficiencies; markers and dashes tell them apart in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# What is left of the "muted" scheme is for methods from elsewhere.
FOREIGN_COLOURS = ("#44AA99", "#AA4499", "#117733", "#CC6677", "#6699CC", "#661100")
FOREIGN_MARKERS = ("p", "h", "d", "8", "H")
DASHES: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0, ()), (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3)), (0, (2, 3)),
)  # fmt: skip
DASHES_OF_VARIANTS = {"paper": 0, "default": 0, "released": 1}
CLEAN, NOISY, GREY = "#0072B2", "#D55E00", "#555555"

# Seats of the methods that ship with the suite, (colour, marker): theirs whatever else is shown. Controls are black and grey.
SEATS: dict[str, tuple[str, str]] = {
    "oracle_clean": ("#000000", "*"),
    "clip": ("#555555", "o"),
    "clip_zeroshot": ("#999999", "s"),
    "cca": ("#777777", "D"),
    "vse": ("#AAAAAA", "^"),
} | {
    name: (PALETTE[seat], MARKERS[seat])
    for seat, name in enumerate(("npc", "hana", "ncr", "msian", "self_paced", "soft_nce", "gmm_bank", "fixed_weight", "clip_plus_meta"))
}  # fmt: skip
# The other task is never in the same figure, so that its methods may sit on the same seats.
SEATS |= {"oracle_clean_labels": SEATS["oracle_clean"], "ce": SEATS["clip"], "lc": SEATS["clip_zeroshot"]} | {
    name: (PALETTE[seat], MARKERS[seat])
    for seat, name in enumerate(("rshnl", "mgsh", "nrch", "ucch", "cmmq", "hcch", "mrl", "nirnl"))
}

LEGEND_WIDTH = 2.5  # inches that a legend beside the panels takes at most

_FIXED: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "svg.hashsalt": "nocobench",
    "svg.fonttype": "path",
    "savefig.dpi": 150,
    "figure.dpi": 100,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


Place = TypeVar("Place")


@dataclass(frozen=True)
class Look:
    """How one ``method@variant`` is drawn."""

    color: str
    dash: tuple[float, tuple[float, ...]]
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each ``method@variant``, the same whatever else is shown.

    Colour and marker follow the method: a fixed seat for those of the suite, one from a hash of the name for others. The dash follows
    the variant; ``paper`` is a full line. Only where two hashes meet in one figure, the later name takes the next free place.
    """
    ordered = sorted(set(names))
    variants: dict[str, list[str]] = defaultdict(list)
    for name in ordered:
        method, _, variant = name.partition("@")
        variants[method].append(variant)
    foreign = _places([m for m in variants if m not in SEATS], list(product(FOREIGN_COLOURS, FOREIGN_MARKERS)), {})
    seats = SEATS | foreign
    known = {variant: DASHES[place] for variant, place in DASHES_OF_VARIANTS.items()}
    dashes = {method: _places(of, list(DASHES), known) for method, of in variants.items()}
    return {
        f"{method}@{variant}": Look(seats[method][0], dashes[method][variant], seats[method][1])
        for method, of in variants.items()
        for variant in of
    }


def _places(names: Sequence[str], places: Sequence[Place], known: Mapping[str, Place]) -> dict[str, Place]:
    """One place for each name: the known one, or a free one where its hash points; shared only when all are taken."""
    free = [place for place in places if place not in known.values()]
    found: dict[str, Place] = {name: known[name] for name in names if name in known}
    for name in sorted(set(names) - set(found)):
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % len(free)
        turned = free[start:] + free[:start]
        found[name] = next((place for place in turned if place not in found.values()), turned[0])
    return found


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Inside, matplotlib is set as the figures want it, whatever the user's own settings say."""
    plain: dict[str, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    with mpl.rc_context(plain | sns.axes_style("ticks") | _FIXED):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to no window and leaves pyplot alone."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(figure: Figure, title: str, caption: str) -> None:
    """Title above, left of the legend; what the numbers are below, in lines that fit the width; no upper and right frame."""
    width = figure.get_figwidth()
    beside = LEGEND_WIDTH if figure.legends else 0.2
    figure.suptitle(wrap(title, int((width - beside) * 11)), x=0.01, ha="left", linespacing=1.1)
    figure.supxlabel(wrap(caption, int(width * 15.5)), fontsize=7.5, color=GREY, x=0.01, ha="left")
    for axes in figure.axes:
        sns.despine(ax=axes)


def legend(figure: Figure, names: Iterable[str], labels: Mapping[str, str], more: Iterable[Line2D] = ()) -> None:
    """To the right of all panels, labels wrapped; the figure grows where it would not fit."""
    handles = [
        Line2D([], [], color=look.color, linestyle=look.dash, label=wrap(labels[name]), **marked(look, 4))
        for name, look in looks(names).items()
    ] + list(more)
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    figure.set_figheight(max(figure.get_figheight(), 0.15 * lines + 0.06 * len(handles) + 0.3))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, handlelength=3)


def marked(look: Look, size: float) -> dict[str, Any]:
    """Keywords for a marker; stars are drawn larger, else they look smaller than the rest."""
    return {"marker": look.marker, "markersize": size * (1.7 if look.marker == "*" else 1.0)}


def wrap(text: str, width: int = 26) -> str:
    """Over several lines."""
    return textwrap.fill(text, width, break_on_hyphens=False)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """``folder/name.png`` and ``.svg``, without dates and program versions; each file appears whole or not at all.

    Raises:
        DiskError: read-only folder, full disk.
    """
    engine = figure.get_layout_engine()
    if engine is not None:  # once for both files: settling the places costs as much as drawing
        engine.execute(figure)
        figure.set_layout_engine(None)
    paths = []
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        figure.savefig(content, format=ending, metadata=metadata)
        paths.append(folder / f"{name}.{ending}")
        write_atomic(paths[-1], content.getvalue(), top=folder, option="--out")
    return paths

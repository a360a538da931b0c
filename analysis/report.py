"""The report: records in, one HTML page out, with all that it needs inside; the same records give the same bytes.

``report_rows`` holds the numbers, ``report_statistics`` what can be told apart, ``report_text`` says it, ``report_details`` and
``report_queries`` carry curves and queries of a bounded number of rows, ``report_published`` what papers print. The page itself is
``report_assets``: its scripts only show what is computed here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ..results.files import write_atomic
from .frame import AnalysisError
from .report_details import DETAILS, Details, details
from .report_published import published_payload
from .report_rows import PageRow, measures_payload, page_rows, records_payload, rows_payload, settings_payload
from .report_statistics import Group, audit_payload, compared, groups_payload
from .report_text import Paragraph, counted, summary
from .stored import unique_labels
from .style import CLEAN, NOISY, looks

ASSETS = Path(__file__).resolve().parent / "report_assets"
SCRIPTS = (
    "charts.js",
    "records.js",
    "tables.js",
    "results.js",
    "provenance.js",
    "choices.js",
    "scores.js",
    "comparisons.js",
    "epochs.js",
    "published.js",
    "start.js",
)
NAME = "index.html"


@dataclass(frozen=True)
class ReportOptions:
    """How the page is made.

    Attributes:
        title: above the page.
        command: how it was called, shown at its end.
        details: how many rows get curves over epochs, densities and queries.
        every_variant: compare ablations too, because they were named.
    """

    title: str = "NoCoBench report"
    command: str = "python run_benchmark.py report"
    details: int = DETAILS
    every_variant: bool = False


def write_report(frame: pd.DataFrame, folder: Path, options: ReportOptions | None = None) -> Path:
    """Write ``folder/index.html``; an older one is replaced at once and whole.

    Raises:
        AnalysisError: no records.
        DiskError: read-only folder, full disk.
    """
    path = Path(folder) / NAME
    write_atomic(
        path, build_report(frame, folder, options or ReportOptions()).encode(), top=path.parent, option="--out"
    )
    return path


def build_report(frame: pd.DataFrame, folder: Path, options: ReportOptions) -> str:
    """The page, for a file in ``folder``, from which links to records start.

    Raises:
        AnalysisError: no records.
    """
    if frame.empty:
        raise AnalysisError("there are no records to report on; run the benchmark first, or name a folder with --from")
    frame = frame.sort_values("path", kind="stable").reset_index(drop=True)
    rows = page_rows(frame)
    groups = compared(frame, options.every_variant)
    detailed = details(rows, frame, options.details)
    paragraphs = summary(frame, rows, groups)
    return _page(_payload(frame, rows, groups, detailed, folder), paragraphs, options)


def _payload(
    frame: pd.DataFrame, rows: Sequence[PageRow], groups: Sequence[Group], detailed: Details, folder: Path
) -> dict[str, Any]:
    """All that the scripts show; every list has a bound, or grows with the rows and records only."""
    methods = methods_payload(frame, rows)
    numbers = {str(one["name"]): place for place, one in enumerate(methods)}
    settings, setting_of = settings_payload(rows, frame)
    return {
        "methods": methods,
        "measures": measures_payload(),
        "settings": settings,
        "rows": rows_payload(rows, frame, setting_of, numbers),
        "records": records_payload(rows, frame, folder),
        "groups": groups_payload(groups, numbers),
        "audit": audit_payload(rows, groups, numbers),
        "training": detailed.training,
        "densities": detailed.densities,
        "queries": detailed.queries,
        "detailsSentence": detailed.sentence(),
        "published": published_payload(rows),
        "colours": {"clean": CLEAN, "noisy": NOISY},
    }


def methods_payload(frame: pd.DataFrame, rows: Sequence[PageRow]) -> list[dict[str, Any]]:
    """Name, label, flags and look of every ``method@variant``, looks being those of all figures."""
    labels = unique_labels(zip(frame["method"], frame["variant"], frame["label"], strict=True))
    flags: dict[str, set[str]] = {}
    for one in rows:
        flags.setdefault(one.name, set()).update(one.row.flags)
    found = []
    for name, look in looks(flags).items():
        style = {"colour": look.color, "dash": list(look.dash[1]), "marker": look.marker}
        found.append({"name": name, "label": labels.get(name, name), "flags": sorted(flags[name]), **style})
    return found


def _page(payload: Mapping[str, Any], paragraphs: Sequence[Paragraph], options: ReportOptions) -> str:
    page = _asset("page.html")
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    count = len(payload["records"]["cell"])
    parts = {
        "title": escape(options.title),
        "policy": policy(style, script),
        "style": style,
        "origin": escape(f"Made from {counted(count, 'record')} by: {options.command}"),
        "summary": "\n".join(map(_paragraph, paragraphs)),
        "data": json_for_html(payload),
        "script": script,
    }
    return _filled(page, parts)


def _filled(page: str, parts: Mapping[str, str]) -> str:
    """Each ``<!--name-->`` of the template replaced once, from front to back: what is put in is never searched again."""
    found = []
    for name in sorted(parts, key=lambda name: page.index(f"<!--{name}-->")):
        before, page = page.split(f"<!--{name}-->", 1)
        found += [before, parts[name]]
    return "".join([*found, page])


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").rstrip("\n")


def _paragraph(one: Paragraph) -> str:
    title, items = escape(one.title), "".join(f"<li>{escape(sentence)}</li>" for sentence in one.sentences)
    if one.aside:
        return f"<details><summary>{title}</summary><ul>{items}</ul></details>"
    return f"<section><h3>{title}</h3><ul>{items}</ul></section>"


def json_for_html(value: Any) -> str:
    """JSON that can stand inside ``<script>``: nothing in it can end the element or start a comment.

    Raises:
        ValueError: a number that is not finite.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign, code in (
        ("&", "\\u0026"),
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    return text


def policy(style: str, script: str) -> str:
    """A content security policy that allows this style and this script and nothing else: no network, no other code."""
    parts = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""The published records are whole, and what the README prints of them is what they hold."""

from __future__ import annotations

import re
from pathlib import Path

from nocobench.analysis.frame import load_frame, select
from nocobench.results.store import check_store

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference" / "cpu-x86_64"


def test_every_reference_record_is_whole() -> None:
    assert check_store(REFERENCE) == []


def test_the_readme_prints_the_main_job_of_the_reference() -> None:
    """Mean and sample standard deviation over five seeds, best in bold."""
    frame = select(load_frame([REFERENCE]), dataset=["digits"], variant=["paper"], status=["done"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for method in ("hana", "npc"):
        (row,) = re.findall(rf"^\| {method}@paper.*$", readme, flags=re.MULTILINE)
        printed = [cell.strip(" *") for cell in row.split("|")[2:-1]]
        scores = [select(frame, method=[method], rate=[rate])["rsum"] for rate in (0.2, 0.4, 0.6, 0.8)]
        assert {len(values) for values in scores} == {5}
        assert printed == [f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" for values in scores]

"""The pages about methods say what the classes say."""

from __future__ import annotations

from pathlib import Path

import pytest
from nocobench.methods import registry
from nocobench.protocols import method_pages

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_of_methods_is_up_to_date() -> None:
    written = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert written == method_pages.page(), f"write it again: {method_pages.COMMAND} > docs/methods.md"


def test_the_readme_holds_the_table_of_methods() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert method_pages.overview() in readme, f"copy the table again from `{method_pages.COMMAND}`"


def test_every_difference_and_changed_constant_is_on_the_page() -> None:
    page = method_pages.page()
    for name in registry.built_in():
        cls = registry.get(name).cls
        assert f"\n## {name}\n" in page
        assert all(one.released in page and one.spec in page for one in cls.differences)
        assert all(f"`{variant}`" in page for variant in cls.variants)
    assert "weight_scope = batch, bank_gradient = False" in page


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("npc", method_pages.FAITHFUL),
        ("hana", "reconstruction"),
        ("self_paced", "generalisation by this suite"),
        ("oracle_clean", "told what is clean"),
        ("clip_plus_meta", "needs verified pairs"),
    ],
)
def test_status_says_what_a_reader_must_know(name: str, words: str) -> None:
    assert words in method_pages.status(registry.get(name).cls)

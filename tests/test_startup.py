"""Commands that train nothing start without torch, and what they say of methods is what the classes say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nocobench.methods import outlines, registry
from nocobench.protocols import known_methods

RUN = """
import sys
import run_benchmark
try:
    code = run_benchmark.main(sys.argv[1:])
except SystemExit as error:
    code = error.code
heavy = [name for name in ("torch", "sklearn", "matplotlib") if name in sys.modules]
print("code", code, "imported", *heavy)
"""
PLAN = (
    "--methods",
    "clip",
    "npc@*",
    "--noise",
    "0.2",
    "0.4",
    "--seeds",
    *map(str, range(100)),
    "--dry-run",
    "--device",
    "cpu",
)


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        *(("list", what) for what in ("methods", "datasets", "protocols", "noise", "runs")),
        ("tables", "--help"),
        ("figures", "--help"),
        PLAN,
        (*PLAN, "--track", "author-recipe", "--methods", "ncr", "mgsh", "--protocol", "digits-labels"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_no_torch_without_training(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder = () if "--help" in words else ("--results", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", RUN, *words, *folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong_task = "mgsh" in words  # ncr is of the other task: refused, also without torch
    assert done.stdout.splitlines()[-1] == f"code {2 if wrong_task else 0} imported", done.stdout + done.stderr


@pytest.mark.parametrize("name", known_methods.names())
def test_outlines_say_what_the_classes_say(name: str) -> None:
    behind = name in known_methods.BEHIND
    source = known_methods.ORACLE if behind else registry.FOLDER / f"{registry.built_in().get(name)}.py"
    if not source.is_file():
        pytest.skip("of an installed package")
    read, found = outlines.outline(name, source), known_methods.entry(name)
    assert read is not None, "not written as literals: commands that list and plan import it"
    cls = found.cls
    assert (read.task, read.label, read.flags, read.needs) == (cls.task, cls.label, cls.flags, cls.needs)
    assert (read.variants, read.binary, read.counterparts) == (tuple(cls.variants), cls.binary, cls.counterparts)
    assert read.has_recipe == (getattr(cls, "recipe", cls) is not None)
    assert read.source == found.source


def test_the_methods_behind_the_firewall_are_those_of_their_file() -> None:
    classes = [node for node in outlines.tree_of(known_methods.ORACLE).body if hasattr(node, "decorator_list")]
    names = [name for node in classes for name in outlines.registered_names(node, known_methods.ORACLE)]  # type: ignore[arg-type]
    assert sorted(names) == sorted(known_methods.BEHIND)


CLASS = """
from nocobench.methods.registry import register
{imports}
class Base:
    pass

@register
class Mine({base}):
    label = {label}
    variants = {variants}
"""


@pytest.mark.parametrize(
    ("changes", "understood"),
    [
        ({}, True),
        ({"label": "'a' + name"}, False),
        ({"variants": "dict(paper=1)"}, False),
        ({"variants": "{name: 1}"}, False),
        ({"base": "Base"}, False),
        ({"base": "GradientMethod, Base"}, False),
        ({"imports": "import a_package_that_is_not_here"}, False),
        ({"imports": "from .absent import GradientMethod"}, False),
        ({"label": "("}, False),
    ],
)
def test_what_is_no_literal_is_left_to_the_class(tmp_path: Path, changes: dict[str, str], understood: bool) -> None:
    usual = {"imports": "from .contract import GradientMethod", "base": "GradientMethod", "label": "'Mine'"}
    filled = CLASS.format(**({**usual, "variants": "{'paper': object()}"} | changes))
    source = tmp_path / "mine.py"
    source.write_text(filled)
    (tmp_path / "contract.py").symlink_to(registry.FOLDER / "contract.py")
    found = outlines.outline("mine", source)
    assert (found is not None) == understood
    if found is not None:
        assert (found.label, found.variants, found.task) == ("Mine", ("paper",), "pair-retrieval")

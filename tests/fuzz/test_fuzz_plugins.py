"""Plug-ins are the user's own code and run as such; one that fails is still one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.asking import checked, refused
from fuzz.counting import attempt, fuzzing
from fuzz.damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from nocobench.methods import registry
from nocobench.protocols.new_method import TEMPLATE

CORPUS = Path(__file__).with_name("corpus") / "plugins"
HEAD = "from nocobench.methods.registry import register\nfrom nocobench.methods.contract import GradientMethod\n"
METHOD = TEMPLATE.format(name="mine", title="Mine", cls="Mine")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is unknown to the next one."""
    known, modules = dict(registry._registered), set(sys.modules)
    yield
    forget(known, modules)


def forget(known: dict[str, registry.Registered], modules: set[str]) -> None:
    registry._registered.clear()
    registry._registered.update(known)
    for name in set(sys.modules) - modules:
        if name.startswith("nocobench_plugin_"):
            del sys.modules[name]


@pytest.mark.parametrize("file", sorted(path.name for path in CORPUS.glob("*.txt")))
def test_bad_plugins(file: str) -> None:
    Path("mine.py").write_bytes((CORPUS / file).read_bytes())
    for typed in (
        ("list", "methods"),
        ("check", "mine"),
        ("--methods", "mine", "--dry-run", "--device", "cpu", "--results", "results"),
    ):
        with attempt("plug-in", file):
            message = refused(*typed, "--plugin", "mine.py")
            assert "mine" in message


def test_a_good_plugin() -> None:
    Path("mine.py").write_text(METHOD)
    assert "mine" in checked("list", "methods", "--plugin", "mine.py").out


def test_what_is_no_file() -> None:
    Path("folder.py").mkdir()
    Path("empty.py").touch()
    Path("mine.txt").write_text(METHOD)
    Path("link.py").symlink_to("link.py")
    for name in ("folder.py", "empty.py", "mine.txt", "link.py", "missing.py", ".", "/dev/null"):
        with attempt("plug-in", name):
            refused("list", "methods", "--plugin", name)


def test_a_built_in_name_is_not_taken() -> None:
    """Also where the built-in method has not been imported yet."""
    known = registry._registered.pop("clip", None)
    Path("clip.py").write_text(METHOD)
    try:
        with attempt("plug-in", "clip"):
            assert "exists twice" in refused("list", "methods", "--plugin", "clip.py")
    finally:
        if known is not None:
            registry._registered["clip"] = known


@given(st.data())
@fuzzing(40)
def test_damaged_plugins(data: st.DataObject) -> None:
    """Damage makes no other code of this file than one that does not compile, or fails, or works."""
    known, modules = dict(registry._registered), set(sys.modules)
    content = data.draw(damaged(METHOD.encode()))
    with attempt("plug-in", content):
        Path("mine.py").write_bytes(content)
        try:
            checked("list", "methods", "--plugin", "mine.py")
        finally:
            forget(known, modules)

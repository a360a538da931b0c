"""One registry of methods with three doors: files of this folder, installed packages, and single plug-in files.

A file ``methods/<name>.py`` that defines a class decorated with ``@register`` makes the method ``<name>`` known; an installed package
does so through the entry-point group ``nocobench.methods``; ``--plugin file.py`` loads one file. A second class under a known name is
refused, whoever comes first.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, overload

from .outlines import registered_names, tree_of

if TYPE_CHECKING:
    # Imports torch, which finding and listing methods does not need.
    from .contract import Method

FOLDER = Path(__file__).resolve().parent
ENTRY_POINT_GROUP = "nocobench.methods"
M = TypeVar("M", bound="type[Method]")


class MethodError(ValueError):
    """A method that cannot be had; the message names it, says why and what to do."""


@dataclass(frozen=True)
class Registered:
    """A method class and where it lives: ``source`` is its file, ``package`` name and version of a foreign package or empty."""

    name: str
    cls: type[Method]
    source: Path
    package: str = ""


_registered: dict[str, Registered] = {}


@overload
def register(cls: M) -> M: ...


@overload
def register(*, name: str) -> Callable[[M], M]: ...


def register(cls: M | None = None, *, name: str | None = None) -> M | Callable[[M], M]:
    """Class decorator; the method's name is the file's name unless ``name`` is given (several methods in one file)."""

    def add(method: M) -> M:
        source = Path(sys.modules[method.__module__].__file__ or "?").resolve()
        chosen = name or source.stem
        known = _registered.get(chosen)
        if known is not None and (known.source, known.cls.__qualname__) != (source, method.__qualname__):
            raise MethodError(f"method {chosen!r} exists twice: in {known.source} and in {source}; rename one of them")
        _registered[chosen] = Registered(chosen, method, source)
        return method

    return add if cls is None else add(cls)


@functools.cache
def built_in() -> dict[str, str]:
    """Method name -> module, read from the decorators without importing (and without importing torch)."""
    return {name: path.stem for path in sorted(FOLDER.glob("*.py")) for name in _names_in(path)}


def _names_in(path: Path) -> list[str]:
    try:
        tree = tree_of(path)
    except SyntaxError:
        return [path.stem]
    return [name for node in tree.body if isinstance(node, ast.ClassDef) for name in registered_names(node, path)]


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def names() -> list[str]:
    """Every known method: built in, installed, loaded as plug-in."""
    return sorted({*built_in(), *_entry_points(), *_registered})


def loaded() -> list[str]:
    """Methods whose file has been imported."""
    return sorted(_registered)


def installed() -> list[str]:
    """Methods of installed packages."""
    return sorted(_entry_points())


def get(name: str) -> Registered:
    """The method of that name; imports only the file it lives in.

    Raises:
        MethodError: unknown name (with the nearest known one), or a file that does not import (with the reason).
    """
    points = _entry_points()
    if name in built_in() and name in points:
        raise MethodError(
            f"method {name!r} exists twice: built in and in package {points[name].value!r}; uninstall or rename"
        )
    if name not in _registered:
        if name in built_in():
            _import(name, lambda: importlib.import_module(f".{built_in()[name]}", __package__))
        elif name in points:
            _import(name, points[name].load)
            _mark_package(name, points[name])
        else:
            raise MethodError(f"unknown method {name!r}{_nearest(name)}; `run_benchmark.py list methods` shows all")
    if name not in _registered:
        raise MethodError(f"the file of method {name!r} registers no class under that name; decorate it with @register")
    return _registered[name]


def load_plugin(path: Path) -> list[str]:
    """Import one file and return the names of the methods it registers.

    Raises:
        MethodError: no such file, it does not import, or it registers nothing.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise MethodError(f"plug-in {path} does not exist")
    before = set(_registered)
    module_name = f"nocobench_plugin_{path.stem}"
    if module_name not in sys.modules:
        _import(path.name, lambda: _load_file(path, module_name))
    found = sorted(name for name, entry in _registered.items() if entry.source == path)
    if not found and set(_registered) == before:
        raise MethodError(f"plug-in {path} registers no method; decorate a Method class with @register")
    return found


def _load_file(path: Path, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _import(name: str, load: Callable[[], object]) -> None:
    try:
        load()
    except MethodError:
        raise
    except Exception as error:
        raise MethodError(f"method {name!r} does not import: {type(error).__name__}: {error}") from error


def _mark_package(name: str, point: importlib.metadata.EntryPoint) -> None:
    entry = _registered.get(name)
    if entry is not None and point.dist is not None:
        _registered[name] = Registered(name, entry.cls, entry.source, f"{point.dist.name} {point.dist.version}")


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, names(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

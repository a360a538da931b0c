"""Plug-in files: Python that the user chose to run. What they register is looked at before anything relies on it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..methods.registry import Registered

TASKS = ("pair-retrieval", "label-hashing")


def load_plugins(paths: Iterable[Path]) -> None:
    """Make the methods of plug-in files known. This runs the files: whoever names one trusts it.

    Raises:
        MethodError: a file that is missing, fails or ends the program, registers nothing, or something else than a method of a new name.
    """
    for path in paths:
        # Imported here, because everything below methods/ imports torch.
        from ..methods import registry

        before = set(registry.names())
        try:
            names = registry.load_plugin(path)
        except (registry.MethodError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a file may also raise SystemExit
            raise registry.MethodError(
                f"plug-in {path} ends with {type(error).__name__}: {error}; it must only define and register classes"
            ) from error
        for name in sorted({*names, *set(registry.names()) - before}):
            entry = registry.get(name)
            if name in registry.built_in() and entry.source.parent != registry.FOLDER:
                raise registry.MethodError(
                    f"method {name!r} exists twice: built in and in {entry.source}; rename yours"
                )
            finding = unusable(entry)
            if finding:
                raise registry.MethodError(f"method {name!r} of plug-in {path} {finding}")


def unusable(entry: Registered) -> str:
    """Why a registered class is no method, as the end of a sentence; empty where it is one."""
    from ..methods.contract import Method

    cls = entry.cls
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        return "is no subclass of Method; derive it from GradientMethod or DirectMethod"
    variants = getattr(cls, "variants", None)
    if not isinstance(variants, Mapping) or not variants or not all(isinstance(one, str) for one in variants):
        return "has no 'variants'; give a dictionary such as {'default': Params()}"
    if getattr(cls, "task", None) not in TASKS:
        return f"has the task {getattr(cls, 'task', None)!r}; known: {', '.join(TASKS)}"
    if not isinstance(getattr(cls, "label", None), str):
        return "has no 'label', the name in tables"
    for what in ("flags", "needs"):
        words = getattr(cls, what, None)
        if (
            not isinstance(words, Collection)
            or isinstance(words, str)
            or not all(isinstance(one, str) for one in words)
        ):
            return f"has {what!r} {words!r}; give a set of words"
    return ""

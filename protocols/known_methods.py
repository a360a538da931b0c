"""Facts about methods for lists and plans: from the source of built-in ones, which needs no torch, else from the class.

Everything below ``methods/`` that computes imports torch, which takes seconds; commands that train nothing should not wait for it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from ..methods.outlines import Outline, outline

if TYPE_CHECKING:
    from ..methods.registry import Registered

ORACLE = Path(__file__).resolve().with_name("oracle.py")
# Methods behind the firewall, which are not in methods/.
BEHIND = ("oracle_clean", "oracle_clean_labels")


def names() -> list[str]:
    """Every known method: built in, behind the firewall, installed, loaded as plug-in."""
    from ..methods import registry

    return sorted({*registry.names(), *BEHIND})


def facts(name: str) -> Outline:
    """What a list or a plan must know of a method.

    Raises:
        MethodError: unknown method (with the nearest), or one that does not import.
    """
    from ..methods import registry

    if name not in registry.loaded() and name not in registry.installed():
        module = registry.built_in().get(name)
        source = ORACLE if name in BEHIND else registry.FOLDER / f"{module}.py" if module else None
        found = _outline(name, source) if source else None
        if found is not None:
            return found
    return _of_class(entry(name))


@functools.cache
def _outline(name: str, source: Path) -> Outline | None:
    return outline(name, source)


def entry(name: str) -> Registered:
    """The registered class itself, imported now.

    Raises:
        MethodError: unknown method (with the nearest), or one that does not import.
    """
    from ..methods import registry
    from . import oracle  # noqa: F401  (registers the methods behind the firewall)

    return registry.get(name)


def _of_class(found: Registered) -> Outline:
    cls = found.cls
    trained = "recipe" in dir(cls)
    return Outline(
        name=found.name,
        source=found.source,
        task=cls.task,
        label=cls.label,
        flags=cls.flags,
        needs=cls.needs,
        variants=tuple(cls.variants),
        binary=cls.binary,
        counterparts=cls.counterparts,
        has_recipe=not trained or getattr(cls, "recipe", None) is not None,
        package=found.package,
    )

"""What can be said of a method without importing it: class attributes read from its source, so that lists and plans need no torch.

Only attributes that are written as literals are understood; for anything else the answer is None, and the class itself must be asked.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTRACT = Path(__file__).resolve().with_name("contract.py")
# Attributes of ``Method`` and its children whose values are of interest; of variants the names only.
_WANTED = ("task", "label", "flags", "needs", "binary", "counterparts", "variants", "recipe")


class NotLiteral(Exception):
    """An attribute whose value only running the file tells."""


@dataclass(frozen=True)
class Outline:
    """Facts about a method; see ``contract.Method`` for their meaning.

    Attributes:
        name: the registered name.
        source: its file.
        variants: their names, the default first.
        has_recipe: it has an author recipe, or needs none because it is not trained by gradient steps.
        package: name and version of a foreign package, or empty.
    """

    name: str
    source: Path
    task: str
    label: str
    flags: frozenset[str]
    needs: frozenset[str]
    variants: tuple[str, ...]
    binary: bool
    counterparts: Mapping[str, str]
    has_recipe: bool
    package: str = ""


def outline(name: str, source: Path) -> Outline | None:
    """The facts of the method ``name`` of a file, or None where they are not written as literals."""
    try:
        module = _Module.read(source)
        if not module.imports_exist():
            return None  # importing it says what is missing
        found = next((one for one in module.classes.values() if name in registered_names(one, source)), None)
        if found is None:
            return None
        values: dict[str, Any] = {}
        ancestors = []
        for cls, at in _line(found, module):
            ancestors.append(cls.name)
            for key, node in _assigned(cls):
                if key not in values:
                    values[key] = _value(key, node, at)
    except (NotLiteral, OSError, SyntaxError, UnicodeDecodeError):
        return None
    if "Method" not in ancestors or "variants" not in values or "label" not in values:
        return None
    recipe = values.pop("recipe", None)
    return Outline(name, source, has_recipe=bool(recipe) or "GradientMethod" not in ancestors, **values)


@functools.cache
def tree_of(source: Path) -> ast.Module:
    """The syntax tree of a file, read once per process.

    Raises:
        SyntaxError: it is not Python.
    """
    return ast.parse(source.read_text(encoding="utf-8"))


def registered_names(cls: ast.ClassDef, source: Path) -> list[str]:
    """The names under which a class is registered: those of its decorators ``@register`` and ``@register(name="...")``."""
    names = []
    for decorator in cls.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        if getattr(call.func if call else decorator, "id", "") == "register":
            given = [k.value.value for k in (call.keywords if call else []) if isinstance(k.value, ast.Constant)]
            names.append(str(given[0]) if given else source.stem)
    return names


@dataclass(frozen=True)
class _Module:
    """Classes of a file, the files of what it imports from beside it, and the foreign packages that it imports."""

    source: Path
    classes: Mapping[str, ast.ClassDef]
    imports: Mapping[str, tuple[Path, str]]
    packages: frozenset[str]

    @staticmethod
    @functools.cache
    def read(source: Path) -> _Module:
        tree = tree_of(source)
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        imports, packages = {}, set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                packages |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                packages.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                folder = source.parents[node.level - 1]
                file = folder / f"{node.module.replace('.', '/')}.py" if node.module else None
                imports.update(
                    {a.asname or a.name: ((file or folder / f"{a.name}.py").resolve(), a.name) for a in node.names}
                )
        return _Module(source, classes, imports, frozenset(packages))

    def imports_exist(self) -> bool:
        """Whether the files and packages that it imports are there; looked for, not imported."""
        files = all(file.is_file() for file, _ in self.imports.values())
        return files and all(importlib.util.find_spec(name) is not None for name in self.packages)

    def find(self, name: str) -> tuple[ast.ClassDef, _Module]:
        """A class by the name that this file knows it by."""
        if name in self.classes:
            return self.classes[name], self
        if name not in self.imports:
            raise NotLiteral(name)
        source, original = self.imports[name]
        return _Module.read(source).find(original)


def _line(cls: ast.ClassDef, module: _Module) -> Iterator[tuple[ast.ClassDef, _Module]]:
    """The class and its ancestors, nearest first, up to ``Method``."""
    while True:
        yield cls, module
        if cls.name == "Method" and module.source == CONTRACT:
            return
        bases = [base for base in cls.bases if isinstance(base, ast.Name)]
        if len(bases) != 1 or len(cls.bases) != 1:
            raise NotLiteral(cls.name)
        cls, module = module.find(bases[0].id)


def _assigned(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for node in cls.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _WANTED:
                assert isinstance(node, ast.Assign | ast.AnnAssign)
                assert node.value is not None
                yield target.id, node.value


def _value(key: str, node: ast.expr, module: _Module) -> Any:
    if key == "recipe":
        return not (isinstance(node, ast.Constant) and node.value is None)
    if key == "variants":
        if not isinstance(node, ast.Dict) or not all(
            isinstance(one, ast.Constant) and isinstance(one.value, str) for one in node.keys
        ):
            raise NotLiteral(key)
        return tuple(one.value for one in node.keys)  # type: ignore[union-attr]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "frozenset" and not node.keywords:
        return frozenset(_literal(node.args[0])) if node.args else frozenset()
    return _literal(node)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise NotLiteral(ast.dump(node)[:80]) from error

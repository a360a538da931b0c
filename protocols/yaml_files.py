"""Reading a YAML file that anybody may have written: no objects, no repeated keys, and a bound on what its aliases stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 100_000
MOST_NODES = 20_000
DEEPEST = 50


class ProtocolError(ValueError):
    """An unusable protocol or grid. The message is one sentence: where, what was found, what to do about it."""


def read_yaml(path: Path) -> Any:
    """The content of a protocol file, made of dicts, lists and scalars only.

    Raises:
        ProtocolError: unreadable, too large, not YAML, or with tags of Python objects.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ProtocolError(
                f"protocol {path} has more than {MOST_BYTES:,} bytes, which no protocol needs; shorten it"
            )
        return _content(text.decode("utf-8"))
    except ProtocolError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"protocol {path} cannot be read: {error}") from error
    except RecursionError as error:
        raise ProtocolError(f"protocol {path} is not valid YAML: nested too deeply") from error
    except yaml.YAMLError as error:
        raise ProtocolError(f"protocol {path} is not valid YAML: {_reason(error)}") from error
    except Exception as error:  # an explicit tag such as !!int on other text makes PyYAML fail in many ways
        raise ProtocolError(f"protocol {path} is not valid YAML: a value does not fit its tag ({error})") from error


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys and deep nesting, and reads ``1e-3`` as a number (YAML 1.2), not as text."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        # While reading, because the scanner takes ever longer for a token the deeper it lies.
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} occurs twice", node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _content(text: str) -> Any:
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes this one stands for, aliases written out.

    Raises:
        YAMLError: too many, or an alias inside what it stands for.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        # An alias to this node inside itself finds the bound, not a number.
        known[id(node)] = MOST_NODES
        pairs = isinstance(node, yaml.MappingNode)
        children = [part for entry in node.value for part in (entry if pairs else (entry,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    if known[id(node)] > MOST_NODES:
        raise yaml.YAMLError(f"with its aliases written out it has more than {MOST_NODES:,} values, or it holds itself")
    return known[id(node)]


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())

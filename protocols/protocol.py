"""A protocol: one versioned YAML file that fixes everything but the method.

Files lie in ``protocols/specs/*.yaml``. Every mistake in one is an error of one sentence that names the file, the key and the nearest valid
one. The command line may override single values; what was overridden becomes part of each cell's identity (``CellKey.overrides``).
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .schema import (
    BackboneChoice,
    BudgetChoice,
    DatasetChoice,
    Evaluation,
    Grants,
    LabelEvaluation,
    MetaGrant,
    NoiseChoice,
    Numerics,
    OptimizerChoice,
    Protocol,
    ScheduleChoice,
    Selection,
)
from .yaml_files import ProtocolError, read_yaml

__all__ = [
    "DEFAULT", "SPECS", "BackboneChoice", "BudgetChoice", "DatasetChoice", "Evaluation", "Grants", "LabelEvaluation", "MetaGrant",
    "NoiseChoice", "Numerics", "OptimizerChoice", "Protocol", "ProtocolError", "ScheduleChoice", "Selection",
    "load_protocol", "nearest", "protocol_names",
    "validated", "with_overrides",
]  # fmt: skip

SPECS = Path(__file__).resolve().parent / "specs"
_LONGEST = 120
DEFAULT = "digits-pairs"

# What the command line may change of a protocol, and the key of the file that each name stands for.
OVERRIDES: Mapping[str, str] = {
    "dataset": "dataset.name",
    "noise_model": "noise.model",
    "rates": "noise.rates",
    "seeds": "seeds",
    "bits": "bits",
    "database": "evaluation.labels.database",
    "database_codes": "evaluation.labels.codes",
    "track": "track",
    "epochs": "budget.epochs",
    "batch_size": "budget.batch_size",
    "learning_rate": "budget.optimizer.learning_rate",
    "selection": "selection.split",
    "threads": "numerics.threads",
    "dtype": "numerics.dtype",
}
# These have a place of their own in a cell's key, so that changing them needs no mark.
IN_THE_KEY = frozenset({"dataset", "noise_model", "rates", "seeds", "bits"})
# These have a meaning in one task only.
OF_LABELS = frozenset({"bits", "database", "database_codes"})


def protocol_names() -> list[str]:
    """Names of the shipped protocols."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_protocol(name_or_path: str | Path) -> Protocol:
    """The protocol of that name, or of that YAML file.

    Raises:
        ProtocolError: no such protocol (with the nearest name), not YAML, or a wrong key or value.
    """
    path = _find(name_or_path)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ProtocolError(f"protocol {path} holds no keys; compare {SPECS / (DEFAULT + '.yaml')}")
    return validated(content, str(path))


def validated(content: Mapping[str, Any], where: str) -> Protocol:
    """Check the content of a protocol file; ``where`` names it in errors.

    Raises:
        ProtocolError: an unknown or missing key, or a value of a wrong type or outside its range.
    """
    try:
        # Strict: a rate "0.2" in quotes or a batch size of yes is a mistake, not a number.
        return Protocol.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling is the news.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ProtocolError(f"protocol {where}: {_sentence(problems[0])}{more}") from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(
            f"protocol {where}: holds what JSON cannot say ({error}); use plain keys and values"
        ) from error


def with_overrides(protocol: Protocol, **changes: Any) -> tuple[Protocol, dict[str, Any]]:
    """The protocol with values changed, and those changes that alter what a cell means beyond its own key.

    ``changes`` are names of :data:`OVERRIDES`; None means unchanged. A value equal to the protocol's own is no change. Options of the
    protocol's data set and noise model are dropped together with them, because they belong to them.

    Returns:
        ``(protocol, overrides)``; ``overrides`` goes into ``CellKey.overrides``.

    Raises:
        ProtocolError: an unknown name or an invalid value.
    """
    content = protocol.model_dump(mode="json")
    marked = {}
    for name, value in changes.items():
        if name not in OVERRIDES:
            raise ProtocolError(f"a protocol has no override {name!r}{nearest(name, OVERRIDES)}")
        value = list(value) if isinstance(value, tuple) else value
        if value is not None and name in OF_LABELS and protocol.task != "label-hashing":
            raise ProtocolError(
                f"protocol {protocol.name!r} is of the task {protocol.task!r} and has no {name.replace('_', ' ')} to choose; "
                "leave it out or take a protocol of the task 'label-hashing'"
            )
        if value is None or value == _value(content, OVERRIDES[name]):
            continue
        _set(content, OVERRIDES[name], value)
        if name in ("dataset", "noise_model"):
            content[OVERRIDES[name].split(".")[0]]["options"] = {}
        if (name, value) == ("noise_model", "none"):
            content["noise"]["rates"] = None
        if name not in IN_THE_KEY:
            marked[name] = value
    return validated(content, f"{protocol.name} with changes from the command line"), marked


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """``; did you mean 'x'?`` or, where nothing is near, the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise ProtocolError(f"protocol file {text}: {error}") from error
        if not path.is_file():
            raise ProtocolError(f"protocol file {path} does not exist")
        return path
    if text not in protocol_names():
        raise ProtocolError(f"unknown protocol {text!r}{nearest(text, protocol_names())}")
    return SPECS / f"{text}.yaml"


def _sentence(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    key = key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest_key(key)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    message = re.sub(r"^(Input|String|List|Tuple) should", "it should", message)
    found = problem.get("input")
    return f"{key!r} is {_short(found)}, but {message}{_nearest_value(found, problem)}"


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _nearest_value(found: Any, problem: Any) -> str:
    allowed = re.findall(r"'([^']+)'", problem.get("ctx", {}).get("expected", ""))
    close = difflib.get_close_matches(str(found), allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _nearest_key(key: str) -> str:
    """The nearest key: the same last word elsewhere, or the nearest spelling."""
    known = list(_keys(Protocol))
    level, _, leaf = key.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == level]
    close = difflib.get_close_matches(key, siblings, n=1, cutoff=0.75)
    elsewhere = [other for other in known if other.rpartition(".")[2] == leaf]
    suggestion = (close or elsewhere or difflib.get_close_matches(key, known, n=1, cutoff=0.5))[:1]
    if suggestion:
        return f"; did you mean {suggestion[0]!r}?"
    return f"; known here: {', '.join(other.rpartition('.')[2] for other in siblings)}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _model_of(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _value(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for part in key.split("."):
        value = value[part]
    return value


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        content = content[part]
    content[last] = value

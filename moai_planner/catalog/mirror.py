"""Frozen domain values as JSON documents and back, with a strict pydantic form between.

    entry_type = mirror(Lane)                # pydantic model with the fields of the dataclass
    document = to_document(lane)             # dicts, lists, numbers, text; keys in a fixed order
    lane = from_entry(Lane, validate(entry_type, document, "plan.json"))

Tuples are lists in JSON, mappings are written with sorted keys, numbers that are not finite as null.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from moai_planner.catalog.validation import Strict

NULLABLE = frozenset(("Interval", "ObjectiveValue"))
"""Classes whose numbers may be null: no bound is known, or no interval can be given."""


@lru_cache(maxsize=64)
def mirror(cls: type) -> type[BaseModel]:
    """The strict pydantic form of a frozen dataclass."""
    return create_model(cls.__name__, __base__=Strict, __doc__=cls.__doc__, **fields_of(cls))


def fields_of(cls: type) -> dict[str, Any]:
    """Field definitions for `create_model`."""
    hints = typing.get_type_hints(cls)
    nullable = cls.__name__ in NULLABLE
    return {
        each.name: (_entry_hint(hints[each.name], nullable), _default(each))
        for each in dataclasses.fields(cls)
    }


def to_document(value: Any) -> Any:
    """A domain value as plain JSON values."""
    if dataclasses.is_dataclass(value):
        return {each.name: to_document(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_document(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [to_document(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return to_document(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_entry(hint: Any, entry: Any) -> Any:
    """The domain value of type `hint` that a checked entry stands for."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(
            **{f.name: from_entry(hints[f.name], getattr(entry, f.name)) for f in dataclasses.fields(hint)}
        )
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return None if entry is None else from_entry(inner, entry)
    if origin is tuple:
        return tuple(from_entry(arguments[0], each) for each in entry)
    if origin is Mapping:
        return {key: from_entry(arguments[1], each) for key, each in entry.items()}
    if hint is float:
        return math.nan if entry is None else float(entry)
    return hint(entry) if isinstance(hint, type) and issubclass(hint, Enum) else entry


def _entry_hint(hint: Any, nullable: bool) -> Any:
    if hint is float:
        return float | None if nullable else float
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return mirror(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Literal[tuple(each.value for each in hint)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return list[_entry_hint(arguments[0], nullable)]
    if origin is Mapping:
        return dict[str, _entry_hint(arguments[1], nullable)]
    if origin in (typing.Union, types.UnionType):
        inner = [_entry_hint(each, nullable) for each in arguments if each is not type(None)]
        return inner[0] | None
    return hint


def _default(each: dataclasses.Field) -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return Field(default_factory=each.default_factory)
    if each.default is dataclasses.MISSING:
        return ...
    plain = to_document(each.default)
    return (
        Field(default_factory=lambda: mirror(type(each.default))(**plain))
        if isinstance(plain, dict)
        else plain
    )

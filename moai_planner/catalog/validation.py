"""Pydantic's complaints as problems with file, field and remedy; and the unit-string field types.

Power = quantity("w")

class Profile(Strict):
    tdp: Power
    "Board power."

profile = validate(Profile, document, "h100.yaml")     # Profile, or InputError with every problem
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from moai_planner.catalog.yaml_file import near
from moai_planner.domain import units
from moai_planner.domain.errors import InputError, Problem


class Strict(BaseModel):
    """What users write: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Model = TypeVar("Model", bound=BaseModel)


def quantity(dimension: str, positive: bool = True) -> Any:
    """A unit string of this dimension, read as an SI float."""

    def read(value: Any) -> float:
        if dimension == "frac" and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        number = units.parse(value, dimension)
        if positive and number <= 0:
            raise ValueError(f"must be more than zero; write it like {units.example(dimension)}")
        return number

    schema = {"type": "string", "examples": [units.example(dimension)]}
    return Annotated[float, BeforeValidator(read), Field(json_schema_extra=schema)]


class Nested(ValueError):
    """Problems found while a field was being resolved. Those with an empty file are of the field itself."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def validate(
    model: type[Model], document: Any, file: str, prefix: str = "", context: dict[str, Any] | None = None
) -> Model:
    """Read a document as `model`, or raise every problem at once."""
    try:
        return model.model_validate(document, context=context)
    except ValidationError as error:
        raise InputError(problems_of(error, model, file, prefix)) from error


def problems_of(error: ValidationError, model: type[BaseModel], file: str, prefix: str = "") -> list[Problem]:
    """Each complaint with its place, the value found and what to write."""
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Nested):
            found.extend(
                _placed(problem, file, field_path(item["loc"], prefix)) for problem in cause.problems
            )
        else:
            found.append(_problem(item, model, file, prefix))
    return found


def _placed(problem: Problem, file: str, field: str) -> Problem:
    if problem.file:
        return problem
    below = problem.field
    joint = "" if not below or not field or below.startswith("[") else "."
    return replace(problem, file=file, field=f"{field}{joint}{below}")


def field_path(location: tuple[int | str, ...], prefix: str = "") -> str:
    """`('pools', 0, 'price')` → `pools[0].price`."""
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def shown(value: Any) -> str:
    """A value as a user would recognise it, never long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"


_PLAIN_WORDS = {
    "model_type": "write `key: value` lines under it",
    "dict_type": "write `key: value` lines under it",
    "list_type": "write a list",
    "string_type": "write text, quoted if it looks like something else",
    "bool_type": "write true or false",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "greater_than": "write more than {gt:g}",
    "greater_than_equal": "write {ge:g} or more",
    "less_than": "write less than {lt:g}",
    "less_than_equal": "write {le:g} or less",
    "too_short": "give at least {min_length}",
}
"""What pydantic says in the terms of programmers, in the terms of who writes the file."""


def _problem(item: Any, model: type[BaseModel], file: str, prefix: str) -> Problem:
    location, kind = item["loc"], item["type"]
    field = field_path(location, prefix)
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return Problem(file, field, f"unknown key {location[-1]!r}", near(str(location[-1]), known))
    if kind == "missing":
        return Problem(file, field, "is missing", f"add `{location[-1]}`")
    if kind == "value_error":
        return Problem(file, field, shown(item["input"]), str(item["ctx"]["error"]))
    if kind == "literal_error":
        return Problem(
            file, field, shown(item["input"]), near(str(item["input"]), _choices(item["ctx"]["expected"]))
        )
    plain = _PLAIN_WORDS.get(kind, "").format(**item.get("ctx", {}))
    return Problem(file, field, shown(item["input"]), plain or item["msg"][:1].lower() + item["msg"][1:])


def _choices(expected: str) -> tuple[str, ...]:
    return tuple(
        part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",") if part.strip()
    )


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Keys that may stand at this place."""
    current: Any = model
    for part in location:
        current = _inner(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields.get(str(part))
            current = info.annotation if info else None
        else:
            arguments = typing.get_args(current)
            current = arguments[-1] if arguments else None
            if current is Ellipsis:
                current = arguments[0]
    current = _inner(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return tuple(info.alias or name for name, info in current.model_fields.items())
    return ()


def _inner(annotation: Any) -> Any:
    """The model inside Annotated and Optional."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(arg for arg in typing.get_args(annotation) if arg is not type(None))
        else:
            return annotation

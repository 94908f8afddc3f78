"""`plan.json`: the answer as a file that other people's scripts rely on, and back.

    text = dump_plan(plan)                  # the same plan is the same bytes
    plan = read_plan(Path("plan.json"))     # InputError with every problem
    schema()                                # its JSON Schema

An instance is written flat (`tp pp dp ep`, and `devices` = devices of one copy); everything else has the
names of the domain values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from moai_planner.catalog.mirror import fields_of, from_entry, mirror, to_document
from moai_planner.catalog.validation import Strict, validate
from moai_planner.catalog.yaml_file import near, read_text
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.layout import Layout
from moai_planner.domain.plan import FORMAT, Instance, Plan

STATUSES = ("optimal", "feasible", "infeasible", "unsolved", "unbounded")
"The last two: the solver stopped before it knew."
_BEFORE_LAYOUT = ("id", "deployment", "role", "pool", "accelerator", "count")
_LAYOUT = ("tp", "pp", "dp", "ep")


def dump_plan(plan: Plan) -> str:
    """The plan as JSON text. Keys in a fixed order, no NaN, no infinity."""
    document = to_document(plan)
    document["instances"] = [_flat(each) for each in document["instances"]]
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_plan(path: Path | str) -> Plan:
    """Read and check a plan file."""
    return parse_plan(read_text(Path(path), "plan.json"), str(path))


def parse_plan(text: str, file: str = "plan.json") -> Plan:
    """A plan out of its JSON text; `file` is how problems call it."""
    document = _parse_json(text, file)
    found = document.get("format")
    if found != FORMAT:
        remedy = f"this tool reads {FORMAT}; solve again, or use the version that wrote it"
        raise InputError(Problem(file, "format", repr(found) if found else "is missing", remedy))
    entry = validate(_plan_entry(), document, file)
    problems = tuple(_find_problems(entry, file))
    if problems:
        raise InputError(problems)
    return from_entry(Plan, _Nested(entry))


def schema() -> dict[str, Any]:
    """JSON Schema of `plan.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"moai-planner plan ({FORMAT})",
        **_plan_entry().model_json_schema(),
    }


def _flat(instance: Mapping[str, Any]) -> dict[str, Any]:
    """An instance's document with its layout spread out, in the order of the contract."""
    rest = {key: value for key, value in instance.items() if key not in (*_BEFORE_LAYOUT, "layout")}
    layout = {key: instance["layout"][key] for key in _LAYOUT}
    devices = layout["tp"] * layout["pp"] * layout["dp"]
    first = {key: instance[key] for key in _BEFORE_LAYOUT}
    return first | {"devices": devices} | layout | {"lane": rest.pop("lane")} | rest


@lru_cache(maxsize=1)
def _plan_entry() -> type[BaseModel]:
    """The strict form of the whole file."""
    instance_fields = fields_of(Instance)
    del instance_fields["layout"]
    degrees = {key: (int, Field(ge=1)) for key in ("devices", *_LAYOUT)}
    instance = create_model(
        "Instance", __base__=Strict, __doc__=Instance.__doc__, **instance_fields, **degrees
    )
    plan_fields = fields_of(Plan) | {"instances": (list[instance], ...)}
    return create_model("Plan", __base__=Strict, __doc__=Plan.__doc__, **plan_fields)


class _Nested:
    """A checked plan whose instances have their layout back, for `from_entry`."""

    def __init__(self, entry: BaseModel):
        self._entry = entry
        self.instances = [_InstanceEntry(each) for each in entry.instances]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


class _InstanceEntry:
    def __init__(self, entry: BaseModel):
        self._entry = entry
        self.layout = mirror(Layout)(**{key: getattr(entry, key) for key in _LAYOUT})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


def _parse_json(text: str, file: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise InputError(Problem(file, "", constant, "a plan holds finite numbers only; solve again"))

    try:
        document = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        remedy = "give the plan.json that `moai-plan solve` wrote"
        raise InputError(Problem(file, f"line {error.lineno}", "is not JSON", remedy)) from error
    except RecursionError as error:
        raise InputError(Problem(file, "", "is nested too deeply", "give a plan.json")) from error
    if not isinstance(document, dict):
        raise InputError(Problem(file, "", f"a {type(document).__name__} at the top", "give a plan.json"))
    return document


def _find_problems(plan: Any, file: str) -> Iterator[Problem]:
    """What no single field shows: references that lead nowhere, and counts that do not add up."""
    if plan.status not in STATUSES:
        yield Problem(file, "status", repr(plan.status), near(plan.status, STATUSES))
    pools = {pool.name: pool for pool in plan.pools}
    deployments, lanes = {each.name for each in plan.deployments}, {lane.id for lane in plan.lanes}
    for index, pool in enumerate(plan.pools):
        if not 0 <= pool.devices_used <= pool.devices_total:
            found = f"{pool.devices_used} of {pool.devices_total}"
            yield Problem(file, f"pools[{index}].devices_used", found, "a plan uses devices that exist")
    for index, instance in enumerate(plan.instances):
        where = f"instances[{index}]"
        for field, value, known in (
            ("pool", instance.pool, tuple(pools)),
            ("deployment", instance.deployment, tuple(deployments)),
            ("lane", instance.lane, tuple(lanes)),
        ):
            if value not in known:
                yield Problem(
                    file, f"{where}.{field}", repr(value), f"names no {field}; {near(value, known)}"
                )
        if instance.devices != instance.tp * instance.pp * instance.dp:
            yield Problem(file, f"{where}.devices", str(instance.devices), "must be tp x pp x dp")
        yield from _find_placement_problems(instance, pools.get(instance.pool), f"{where}.placements", file)
    members = {each.id for each in plan.instances}
    for index, lane in enumerate(plan.lanes):
        for member in lane.members:
            if member not in members:
                yield Problem(
                    file,
                    f"lanes[{index}].members",
                    repr(member),
                    f"names no instance; {near(member, members)}",
                )


def _find_placement_problems(instance: Any, pool: Any, where: str, file: str) -> Iterator[Problem]:
    if pool is None or not instance.placements:
        return
    if len(instance.placements) != instance.count:
        found = f"{len(instance.placements)} for {instance.count} copies"
        yield Problem(file, where, found, "place every copy once")
    for number, placement in enumerate(instance.placements):
        devices = [device for node in placement.devices for device in node]
        fits = (
            len(placement.hosts) == len(placement.devices)
            and len(devices) == instance.devices
            and all(0 <= host < pool.nodes for host in placement.hosts)
            and all(0 <= device < pool.devices_per_node for device in devices)
        )
        if not fits:
            remedy = f"give {instance.devices} devices on hosts of pool {pool.name}"
            yield Problem(file, f"{where}[{number}]", "does not fit the pool", remedy)

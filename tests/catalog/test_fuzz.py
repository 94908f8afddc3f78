"""Law: whatever a file holds, it reads or every fault is an input problem; never another exception."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_capacity import GOOD
from test_models import DENSE
from test_plan_file import example

from moai_planner.catalog.accelerator_file import AcceleratorFile, accelerator_from
from moai_planner.catalog.capacity_file import CapacityFile, find_duplicates
from moai_planner.catalog.models import model_names, read_model, shipped_path
from moai_planner.catalog.paths import data_root
from moai_planner.catalog.plan_file import dump_plan, parse_plan
from moai_planner.catalog.validation import validate
from moai_planner.catalog.yaml_file import parse_yaml, read_yaml
from moai_planner.domain.errors import InputError
from moai_planner.domain.provenance import ASSUMED

odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1 GB/s"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
ACCELERATOR = read_yaml(data_root() / "hardware_profiles" / "mi300x.yaml")
PLAN = json.loads(dump_plan(example()))
CONFIGURATIONS = [DENSE] + [
    json.loads(shipped_path(name).read_text())
    for name in model_names()
    if name.startswith(
        ("deepseek-ai/DeepSeek-V3.2", "deepseek-ai/DeepSeek-V4-Pro", "Qwen/Qwen3.5-27B", "nvidia/N")
    )
]


def spoil(data: st.DataObject, document: Any) -> Any:
    """The document with one value, anywhere in it, replaced by an odd one."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    holder, key = places[data.draw(st.integers(0, len(places) - 1))]
    holder[key] = data.draw(odd_values)
    return document


def _places(value: Any):
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoilt_capacity_files(data):
    document = spoil(data, GOOD)
    list(find_duplicates(document, "x"))
    with suppress(InputError):
        validate(CapacityFile, document, "x")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoilt_accelerators(data):
    with suppress(InputError):
        accelerator_from(validate(AcceleratorFile, spoil(data, ACCELERATOR), "x"), "x", "x")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_spoilt_model_configurations(data):
    document = spoil(data, data.draw(st.sampled_from(CONFIGURATIONS)))
    with suppress(InputError):
        read_model(document, "x", "config.json", ASSUMED)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_spoilt_plans(data):
    with suppress(InputError):
        parse_plan(json.dumps(spoil(data, PLAN)))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:{}[]-&*!#'\"|>%@`\n\t 01.,?\x00", max_size=40))
def test_any_text_as_yaml(text):
    with suppress(InputError):
        assert isinstance(parse_yaml(text, "x"), dict)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers() | st.text(max_size=3) | st.none(), odd_values, max_size=3))
def test_any_mapping_as_a_capacity_file(document):
    with suppress(InputError):
        validate(CapacityFile, parse_yaml(yaml.safe_dump(document), "x"), "x")

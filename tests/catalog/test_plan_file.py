"""plan.json: what is written reads back equal, in the same bytes, and nothing odd gets in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moai_planner.catalog.models import model
from moai_planner.catalog.plan_file import dump_plan, parse_plan, read_plan, schema
from moai_planner.domain.errors import InputError
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.plan import (
    FORMAT,
    Binding,
    DeploymentPlan,
    Instance,
    Lane,
    ObjectiveValue,
    Placement,
    Plan,
    PoolUse,
    Relaxation,
    Split,
)
from moai_planner.domain.precision import PRECISIONS
from moai_planner.domain.provenance import Basis, Interval
from moai_planner.domain.step import KvTransfer

numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0, max_value=1e18)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12)
intervals = st.builds(Interval, numbers, numbers, numbers, st.sampled_from(Basis))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
transfers = st.builds(
    KvTransfer, words, st.booleans(), amounts, amounts, amounts, amounts, st.floats(min_value=0, max_value=1)
)

VALIDATOR = jsonschema.Draft202012Validator(schema())

CONTRACT = {
    "format",
    "tool_version",
    "inputs",
    "status",
    "objective",
    "cost_usd_per_h",
    "pools",
    "instances",
    "lanes",
    "windows",
    "binding",
    "assumptions",
    "verification",
    "explanation",
}
INSTANCE_CONTRACT = [
    "id",
    "deployment",
    "role",
    "pool",
    "accelerator",
    "count",
    "devices",
    "tp",
    "pp",
    "dp",
    "ep",
    "lane",
    "engine",
]


def example(instances: int = 1, name: str = "chat") -> Plan:
    """A small plan whose references hold."""
    pool = PoolUse(
        "h100", "h100_sxm", 2 * instances, 64, 8, 8, 4e11, 1.78, ("10.0.0.1",) * 8, "cuda", "NVIDIA"
    )
    made = tuple(
        Instance(
            id=f"i{index}",
            deployment=name,
            role="mixed",
            pool="h100",
            accelerator="h100_sxm",
            count=1,
            layout=Layout(tp=2),
            engine=Engine(),
            lane="l0",
            batch=8,
            predicted={"ttft_s": Interval(1.0, 0.5, 2.0, Basis.ANALYTIC)},
            memory={"kv_bytes": 3e10},
            placements=(Placement((index,), ((0, 1),)),),
            utilization={"time": 0.5},
            rate_req_per_s=3.0,
        )
        for index in range(instances)
    )
    return Plan(
        format=FORMAT,
        tool_version="0.1.0",
        inputs={"capacity.yaml": "00"},
        status="optimal",
        objective=ObjectiveValue("least-cost", 1.0, 0.9, 0.1),
        cost_usd_per_h=3.56,
        pools=(pool,),
        deployments=(
            DeploymentPlan(
                name,
                model("deepseek-ai/DeepSeek-V3.2"),
                "deepseek-ai/DeepSeek-V3.2",
                PRECISIONS["fp8"],
                "azure_2023_conv",
                1.0,
                5.5,
                {"ttft_p95": 2.0},
                16384,
                True,
            ),
        ),
        instances=made,
        lanes=(Lane("l0", name, "mixed", 1, 1.0, tuple(each.id for each in made)),),
        splits=(Split(name, "w", "c0", "l0", "i0", "i0", 3.0),),
        windows=({"name": "w", "start_s": 0.0, "end_s": 60.0},),
        binding=(Binding("capacity_i0", "time of i0", 0.5),),
        assumptions=("prices are rentals",),
    )


@st.composite
def plans(draw) -> Plan:
    base = example(draw(st.integers(1, 3)), draw(words))
    lane = replace(base.lanes[0], transfer=draw(st.none() | transfers), share=draw(numbers))
    instances = tuple(
        replace(
            each,
            predicted=draw(st.dictionaries(words, intervals, max_size=3)),
            memory=draw(st.dictionaries(words, amounts, max_size=3)),
            rate_req_per_s=draw(amounts),
            layout=Layout(tp=2, ep=draw(st.sampled_from((1, 2)))),
        )
        for each in base.instances
    )
    return replace(
        base,
        lanes=(lane,),
        instances=instances,
        status=draw(st.sampled_from(("optimal", "feasible", "infeasible"))),
        inputs=draw(st.dictionaries(words, words, max_size=3)),
        objective=ObjectiveValue("least-cost", draw(numbers), draw(numbers), draw(numbers)),
        binding=(Binding(draw(words), draw(words), draw(st.none() | numbers)),),
        windows=tuple(draw(st.lists(st.dictionaries(words, json_values, max_size=3), max_size=2))),
        verification=draw(st.dictionaries(words, json_values, max_size=3)),
        rejected=draw(st.dictionaries(words, st.integers(0, 9), max_size=3)),
        explanation=draw(st.just(()) | st.just((Relaxation("a", "b", "c", "d"),))),
        options=draw(st.dictionaries(words, json_values, max_size=3)),
    )


@settings(max_examples=40, deadline=None)
@given(plans())
def test_round_trip(plan):
    """Law: reading what was written gives the same plan, and writing that the same bytes."""
    text = dump_plan(plan)
    again = parse_plan(text)
    assert again == plan
    assert dump_plan(again) == text


@settings(max_examples=10, deadline=None)
@given(plans())
def test_every_plan_keeps_the_schema(plan):
    VALIDATOR.validate(json.loads(dump_plan(plan)))


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["additionalProperties"] is False


def test_contract_fields():
    """The names that other people's scripts read."""
    document = json.loads(dump_plan(example()))
    assert document.keys() >= CONTRACT
    instance = document["instances"][0]
    assert list(instance)[: len(INSTANCE_CONTRACT)] == INSTANCE_CONTRACT
    assert instance["devices"] == 2
    assert instance["predicted"]["ttft_s"] == {"value": 1.0, "low": 0.5, "high": 2.0, "basis": "analytic"}


def test_order_of_mappings_does_not_show():
    """Law: the same plan is the same bytes, however it was put together."""
    plan = example()
    turned = replace(plan, inputs={"b": "1", "a": "2"}), replace(plan, inputs={"a": "2", "b": "1"})
    assert dump_plan(turned[0]) == dump_plan(turned[1])


def test_no_nan_and_no_infinity_is_written():
    plan = replace(example(), objective=ObjectiveValue("least-cost", math.nan, -math.inf, math.inf))
    text = dump_plan(plan)
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["objective"]["bound"] is None
    assert math.isnan(parse_plan(text).objective.bound)


def test_numpy_numbers_are_numbers():
    plan = replace(example(), cost_usd_per_h=np.float64(1.5), verification={"x": np.arange(2)})
    assert parse_plan(dump_plan(plan)).verification == {"x": [0, 1]}


def spoilt(change) -> str:
    document = json.loads(dump_plan(example()))
    change(document)
    with pytest.raises(InputError) as caught:
        parse_plan(json.dumps(document))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(format="moai-plan/0"), "format: 'moai-plan/0' (this tool reads moai-plan/1"),
        (lambda d: d.pop("format"), "format: is missing"),
        (lambda d: d.pop("lanes"), "lanes: is missing"),
        (lambda d: d.update(statu="x"), "unknown key 'statu' (did you mean status?)"),
        (lambda d: d.update(status="perfect"), "status: 'perfect'"),
        (lambda d: d.update(cost_usd_per_h="3"), "cost_usd_per_h: '3'"),
        (lambda d: d.update(cost_usd_per_h=None), "cost_usd_per_h"),
        (lambda d: d["instances"][0].update(tp=0), "instances[0].tp: 0"),
        (lambda d: d["instances"][0].update(tp=4), "must be tp x pp x dp"),
        (lambda d: d["instances"][0].update(pool="h10"), "names no pool; did you mean h100?"),
        (lambda d: d["instances"][0].update(count=2), "place every copy once"),
        (lambda d: d["instances"][0]["placements"][0].update(hosts=[99]), "does not fit the pool"),
        (lambda d: d["lanes"][0].update(members=["i7"]), "names no instance; did you mean i0?"),
        (lambda d: d["pools"][0].update(devices_used=99), "a plan uses devices that exist"),
        (
            lambda d: d["instances"][0]["predicted"]["ttft_s"].update(basis="guessed"),
            "instances[0].predicted.ttft_s.basis",
        ),
    ],
)
def test_spoilt_plans(change, said):
    assert said in spoilt(change)


def test_all_problems_at_once():
    def change(document):
        document["instances"][0]["tp"] = "2"
        document["pools"][0]["devices_used"] = None
        document["more"] = 1

    assert len(spoilt(change).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "line 1: is not JSON"),
        ("[]", "a list at the top"),
        ('{"format": NaN}', "NaN (a plan holds finite numbers only"),
    ],
)
def test_not_a_plan(tmp_path: Path, text, said):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_plan(path)
    assert said in str(caught.value) and str(path) in str(caught.value)

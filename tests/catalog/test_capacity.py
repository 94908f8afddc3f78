"""Capacity files and flags: what a user means is understood, what is wrong is said once and completely."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
import yaml

from moai_planner.catalog.capacity import capacity_from_flags, read_capacity
from moai_planner.catalog.paths import data_root
from moai_planner.domain.errors import InputError

EXAMPLE = data_root() / "examples" / "mixed-vendor" / "capacity.yaml"
GOOD = {
    "format": "moai-capacity/1",
    "cluster": {
        "pools": [
            {"name": "a", "accelerator": "h100_sxm", "nodes": 1, "devices_per_node": 8},
            {"name": "b", "accelerator": "mi300x", "nodes": 2, "devices_per_node": 8, "price": "1.90 USD/h"},
        ]
    },
    "deployments": [
        {
            "name": "chat",
            "model": "openai/gpt-oss-120b",
            "trace": "azure_2023_conv",
            "slo": {"ttft_p95": "2 s", "tpot_p95": "40 ms"},
        }
    ],
}


def write(folder: Path, document) -> Path:
    path = folder / "capacity.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return path


def changed(**places):
    """GOOD with values at dotted places replaced; `...` removes."""
    document = copy.deepcopy(GOOD)
    for place, value in places.items():
        *path, last = [int(part) if part.isdigit() else part for part in place.split("__")]
        inner = document
        for part in path:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return document


def problems_of(folder: Path, document) -> str:
    with pytest.raises(InputError) as caught:
        read_capacity(write(folder, document))
    return str(caught.value)


def test_the_example_reads():
    request = read_capacity(EXAMPLE)
    assert [pool.name for pool in request.pools] == ["h100", "h200", "mi300x", "mi308x"]
    assert {each.model.id for each in request.deployments} == {
        "openai/gpt-oss-120b",
        "deepseek-ai/DeepSeek-R1",
        "meta-llama/Llama-3.3-70B-Instruct",
    }
    assert not any(pool.assumed for pool in request.pools)


def test_what_was_left_out_is_assumed_and_said(tmp_path: Path):
    """Law: nothing is filled in silently."""
    request = read_capacity(write(tmp_path, GOOD))
    first, second = request.pools
    assert first.price_usd_per_h == pytest.approx(1.78)
    assert first.network_bytes_per_s == pytest.approx(8 * 50e9)
    assert first.assumed == ("network", "price", "hosts") and second.assumed == ("network", "hosts")
    assert second.hosts == ("10.0.1.1", "10.0.1.2")
    text = "\n".join(request.assumptions)
    for part in (
        "pool a: price 1.78 USD/h",
        "pool a: network",
        "invented",
        "precision mxfp4",
        "max_model_len 14336",
    ):
        assert part in text
    assert "pool b: price" not in text


def test_rate_and_rate_scale_mean_the_same(tmp_path: Path):
    """Law: the workload's rate is the trace's rate times the scale, or the rate wanted."""
    scaled = read_capacity(write(tmp_path, changed(deployments__0__rate_scale=3.0))).deployments[0]
    rated = read_capacity(write(tmp_path, changed(deployments__0__rate="12 req/s"))).deployments[0]
    window = scaled.workload.windows[0]
    assert window.rate_req_per_s == pytest.approx(3.0 * scaled.trace.rate_req_per_s)
    assert rated.workload.windows[0].rate_req_per_s == pytest.approx(12.0)


def test_the_digests_are_of_the_files_read(tmp_path: Path):
    path = write(tmp_path, GOOD)
    inputs = dict(read_capacity(path).inputs)
    assert inputs[str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"hardware_profiles/h100_sxm.yaml", "models/openai/gpt-oss-120b"} <= inputs.keys()
    assert any(name.startswith("workload_traces/azure_2023_conv") for name in inputs)


def test_paths_are_relative_to_the_file(tmp_path: Path):
    (tmp_path / "requests.csv").write_text("arrival,isl,osl\n0.0,100,10\n1.0,200,20\n2.0,300,30\n")
    request = read_capacity(write(tmp_path, changed(deployments__0__trace="requests.csv")))
    assert len(request.deployments[0].trace) == 3
    assert request.deployments[0].trace.name == str(tmp_path / "requests.csv")


def test_options_and_deployment_keys(tmp_path: Path):
    document = changed(
        options={"confidence": "none", "gap": "0.5%", "time_limit": "90 s", "cross_vendor_kv": True},
        objective="most-load",
        deployments__0__kv_dtype="fp8",
        deployments__0__roles=["mixed"],
        deployments__0__max_model_len=16384,
        deployments__0__prefix_caching=False,
        deployments__0__cells=[2, 2],
        deployments__0__windows=3,
    )
    request = read_capacity(write(tmp_path, document))
    options, deployment = request.options, request.deployments[0]
    assert (options.confidence, options.gap_frac, options.time_limit_s) == (None, 0.005, 90.0)
    assert options.cross_vendor_kv and request.objective == "most-load"
    assert (deployment.precision.kv, deployment.roles, deployment.max_model_len) == ("fp8", ("mixed",), 16384)
    assert len(deployment.workload.windows) == 3


BAD = {
    "unknown key": (
        changed(cluster__pools__0__acelerator="x"),
        "unknown key 'acelerator' (did you mean accelerator?)",
    ),
    "wrong unit": (changed(cluster__pools__0__network="3.35 TB"), "cluster.pools[0].network: '3.35 TB'"),
    "no unit": (changed(cluster__pools__0__price=2.2), "cluster.pools[0].price: 2.2"),
    "negative price": (changed(cluster__pools__0__price="-1 USD/h"), "cluster.pools[0].price"),
    "negative nodes": (changed(cluster__pools__0__nodes=-1), "cluster.pools[0].nodes: -1"),
    "zero nodes": (changed(cluster__pools__0__nodes=0), "cluster.pools[0].nodes: 0"),
    "half a node": (changed(cluster__pools__0__nodes=1.5), "cluster.pools[0].nodes: 1.5"),
    "nodes as text": (changed(cluster__pools__0__nodes="2"), "cluster.pools[0].nodes: '2'"),
    "nodes as truth": (changed(cluster__pools__0__nodes=True), "cluster.pools[0].nodes: True"),
    "nan rate": (changed(deployments__0__rate_scale=float("nan")), "deployments[0].rate_scale: nan"),
    "infinite rate": (changed(deployments__0__rate_scale=float("inf")), "deployments[0].rate_scale: inf"),
    "zero rate": (changed(deployments__0__rate_scale=0), "deployments[0].rate_scale: 0"),
    "two rates": (
        changed(deployments__0__rate_scale=1.0, deployments__0__rate="3 req/s"),
        "keep one of them",
    ),
    "unknown accelerator": (changed(cluster__pools__0__accelerator="h1000"), "did you mean h100"),
    "no accelerator": (changed(cluster__pools__0__accelerator=...), "accelerator: is missing"),
    "unknown model": (
        changed(deployments__0__model="openai/gpt-os-120b"),
        "did you mean openai/gpt-oss-120b",
    ),
    "unknown trace": (changed(deployments__0__trace="azure_2023_con"), "did you mean azure_2023_conv"),
    "unknown precision": (changed(deployments__0__precision="fp9"), "did you mean fp8"),
    "unknown kv": (changed(deployments__0__kv_dtype="bf17"), "deployments[0].kv_dtype: 'bf17'"),
    "slo metric": (changed(deployments__0__slo={"ttfb_p95": "2 s"}), "deployments[0].slo.ttfb_p95"),
    "slo statistic": (changed(deployments__0__slo={"ttft_p100": "2 s"}), "deployments[0].slo.ttft_p100"),
    "slo of zero": (changed(deployments__0__slo={"ttft_p95": "0 s"}), "nothing is that fast"),
    "slo unit": (changed(deployments__0__slo={"ttft_p95": "2 GB"}), "'GB' is not a unit of s"),
    "slo empty": (changed(deployments__0__slo={}), "promise at least one latency"),
    "slo a list": (changed(deployments__0__slo=["ttft"]), "promise at least one latency"),
    "objective": (changed(objective="most-loat"), "did you mean most-load"),
    "confidence": (changed(options={"confidence": 1.5}), "options.confidence: 1.5"),
    "gap": (changed(options={"gap": "-1%"}), "options.gap"),
    "time limit": (changed(options={"time_limit": 60}), "options.time_limit: 60"),
    "role": (changed(deployments__0__roles=["mixt"]), "did you mean mixed"),
    "half a pair": (changed(deployments__0__roles=["decode"]), "prefill together with decode"),
    "context": (changed(deployments__0__max_model_len=999_999), "the model reads at most 131072 tokens"),
    "short context": (
        changed(deployments__0__max_model_len=4096),
        "longest request of azure_2023_conv has 14089",
    ),
    "small model": (changed(deployments__0__model="facebook/opt-125m"), "at most 2048 tokens fit"),
    "two pools a": (changed(cluster__pools__1__name="a"), "is used twice"),
    "odd name": (changed(cluster__pools__0__name="a b/c"), "use letters"),
    "host count": (
        changed(cluster__pools__0__hosts=["10.0.0.1", "10.0.0.2"]),
        "give one for each of 1 nodes",
    ),
    "odd host": (changed(cluster__pools__0__hosts=["a b; rm"]), "write an address"),
    "no price": (changed(cluster__pools__0__accelerator="gaudi3"), "nobody publishes one for gaudi3"),
    "no pools": (changed(cluster__pools=[]), "cluster.pools"),
    "no deployments": (changed(deployments=[]), "deployments"),
    "old format": (changed(format="moai-capacity/0"), "did you mean moai-capacity/1?"),
    "cells": (changed(deployments__0__cells=[0, 3]), "deployments[0].cells"),
    "windows": (changed(deployments__0__windows=0), "deployments[0].windows"),
    "pools a text": (changed(cluster__pools="h100:1x8"), "cluster.pools"),
    "not yaml": ("format: [", "is not YAML"),
    "empty": ("", "is empty"),
    "a list": ("- 1\n", "a list at the top"),
    "a key twice": ("format: a\nformat: b\n", "line 2: key 'format' is given twice"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_bad_input(tmp_path: Path, case):
    """Each kind of fault is named with its place and a way out."""
    document, said = BAD[case]
    text = problems_of(tmp_path, document)
    assert said in text
    assert all("(" in line for line in text.splitlines()), "every problem has a remedy"


def test_all_problems_at_once(tmp_path: Path):
    """Law: two faults are two problems, wherever they stand."""
    document = changed(
        cluster__pools__0__nodes=0,
        cluster__pools__1__name="a",
        deployments__0__model="nope/nope",
        deployments__0__slo={"ttfb_p95": "2 s", "tpot_p95": "40"},
        objective="cheap",
    )
    assert len(problems_of(tmp_path, document).splitlines()) == 6


def test_malformed_trace_names_its_line(tmp_path: Path):
    (tmp_path / "requests.csv").write_text("arrival,isl,osl\n0.0,100,10\n1.0,-5,20\n")
    text = problems_of(tmp_path, changed(deployments__0__trace="requests.csv"))
    assert "requests.csv" in text and "line 3" in text


def test_missing_file_and_directory(tmp_path: Path):
    for path, said in ((tmp_path / "none.yaml", "does not exist"), (tmp_path, "is a directory")):
        with pytest.raises(InputError, match=said):
            read_capacity(path)


def test_configuration_of_an_own_model_with_a_fault_is_named(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    text = problems_of(tmp_path, changed(deployments__0__model=str(tmp_path)))
    assert str(tmp_path / "config.json") in text and "hidden_size" in text


def test_flags_equal_the_file(tmp_path: Path):
    """Law: a file and the same flags are the same request."""
    document = copy.deepcopy(GOOD)
    document["cluster"]["pools"] = [
        {"name": "h100", "accelerator": "h100", "nodes": 1, "devices_per_node": 8},
        {"name": "mi300x", "accelerator": "mi300x", "nodes": 2, "devices_per_node": 8, "price": "1.9 USD/h"},
    ]
    document["deployments"][0] |= {"name": "gpt-oss-120b", "rate_scale": 2.0}
    by_file = read_capacity(write(tmp_path, document))
    by_flags = capacity_from_flags(
        "openai/gpt-oss-120b",
        "h100:1x8,mi300x:2x8@1.9",
        "azure_2023_conv",
        "ttft_p95<=2s,tpot_p95<=40ms",
        deployment={"rate_scale": 2.0, "rate": None},
    )
    assert by_flags.pools == by_file.pools
    assert by_flags.deployments[0].slo == by_file.deployments[0].slo
    assert by_flags.deployments[0].workload == by_file.deployments[0].workload
    assert (by_flags.options, by_flags.assumptions) == (by_file.options, by_file.assumptions)


def test_pools_out_of_a_file(tmp_path: Path):
    path = write(tmp_path, GOOD)
    request = capacity_from_flags("gpt-oss-120b", str(path), "azure_2023_conv", "ttft_p95<=2s")
    assert [pool.name for pool in request.pools] == ["a", "b"]
    assert str(path) in dict(request.inputs)


@pytest.mark.parametrize(
    ("cluster", "slo", "said"),
    [
        ("h100", "ttft_p95<=2s", "--cluster: 'h100'"),
        ("h100:1x8;mi300x:1x8", "ttft_p95<=2s", "--cluster"),
        ("h100:0x8", "ttft_p95<=2s", "nodes: 0"),
        ("h10000:1x8", "ttft_p95<=2s", "did you mean h100"),
        ("h100:1x8", "ttft_p95", "--slo: 'ttft_p95'"),
        ("h100:1x8", "", "--slo"),
        ("h100:1x8", "ttft_p95<=2", "the unit is missing"),
        ("h100:1x8", "ttft_p95<=2s,ttft_p95<=3s", "is given twice"),
        ("nowhere.yaml", "ttft_p95<=2s", "nowhere.yaml: does not exist"),
    ],
)
def test_bad_flags(cluster, slo, said):
    with pytest.raises(InputError) as caught:
        capacity_from_flags("gpt-oss-120b", cluster, "azure_2023_conv", slo)
    assert said in str(caught.value)

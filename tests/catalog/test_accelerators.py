"""Accelerator files: every one loads, every number has a source, every fault is named."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from moai_planner.catalog.accelerator_file import AcceleratorFile, accelerator_from, read_accelerator
from moai_planner.catalog.accelerators import SHORT_NAMES, accelerator, accelerator_ids, accelerator_named
from moai_planner.catalog.paths import data_root
from moai_planner.catalog.validation import validate
from moai_planner.catalog.yaml_file import read_yaml
from moai_planner.domain.errors import InputError

WANTED = (
    "a100_sxm_80gb",
    "h100_sxm",
    "h100_pcie",
    "h200_sxm",
    "h20",
    "h800_sxm",
    "l4",
    "l40s",
    "b200_sxm",
    "b300_sxm",
    "gb200_nvl72",
    "gb300_nvl72",
    "rtx_pro_6000",
    "rtx_4090",
    "mi250",
    "mi300x",
    "mi308x",
    "mi325x",
    "mi350x",
    "mi355x",
    "gaudi3",
    "tt_n150",
    "tt_n300",
    "tt_p150",
    "rubin_vr200",
    "rubin_cpx",
    "groq3_lpu",
    "tt_galaxy_wormhole",
    "cpu",
)
NUMBERS = {
    "memory_bytes",
    "memory_bandwidth_bytes_per_s",
    "peak_flop_per_s",
    "scale_up",
    "scale_out_bytes_per_s",
    "host_link_bytes_per_s",
    "tdp_w",
    "all_in_w",
    "price_usd_per_h",
}


def example() -> dict:
    return read_yaml(data_root() / "hardware_profiles" / "h100_sxm.yaml")


def problems_of(document: dict) -> str:
    with pytest.raises(InputError) as caught:
        accelerator_from(validate(AcceleratorFile, document, "x.yaml"), "x", "x.yaml")
    return str(caught.value)


def test_the_wanted_devices_are_known():
    assert set(WANTED) <= set(accelerator_ids())
    assert len(accelerator_ids()) >= 36


@pytest.mark.parametrize("device", accelerator_ids())
def test_every_number_has_a_source(device):
    """Law: no number from outside without a place it was taken from, and a date."""
    found = accelerator(device)
    for number in NUMBERS - {"peak_flop_per_s", "price_usd_per_h"}:
        assert number in found.sources
    for number_format in found.peak_flop_per_s:
        assert f"peak_flop_per_s.{number_format}" in found.sources
    assert ("price_usd_per_h" in found.sources) == (found.price_usd_per_h > 0)
    for source in found.sources.values():
        assert source.title and source.where and re.match(r"20\d\d-\d\d", source.date)


@pytest.mark.parametrize("device", accelerator_ids())
def test_numbers_are_plausible(device):
    """A device's numbers stand in the order that physics and marketing give them."""
    found = accelerator(device)
    peaks = found.peak_flop_per_s
    assert peaks["bf16"] <= peaks.get("fp8", peaks["bf16"]) <= peaks.get("fp4", float("inf"))
    assert found.tdp_w < found.all_in_w
    assert found.confidence in ("high", "medium", "low")
    assert found.memory_bandwidth_bytes_per_s > found.host_link_bytes_per_s / 2


def test_dense_not_sparse():
    """The L40S is the device that public catalogs list with sparsity."""
    assert accelerator("l40s").peak_flop_per_s["fp8"] == pytest.approx(733e12)
    assert accelerator("mi308x").flop_per_s("fp8") == pytest.approx(
        0.18 * accelerator("mi300x").flop_per_s("fp8"), rel=0.01
    )


def test_an_80_gb_board_offers_less_than_80_gib():
    assert 79 < accelerator("h100_sxm").memory_bytes / 2**30 < 80


def test_fp8_kv_of_cdna3_is_another_format():
    assert accelerator("mi300x").kv_format_family != accelerator("mi355x").kv_format_family


def test_short_names_lead_to_devices():
    assert set(SHORT_NAMES.values()) <= set(accelerator_ids())
    assert accelerator("h100") is accelerator("h100_sxm") or accelerator("h100") == accelerator("h100_sxm")


@pytest.mark.parametrize(
    ("board", "device"),
    [
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie_80gb"),
        ("NVIDIA A100-PCIE-40GB", ""),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("NVIDIA H800 PCIe", ""),
        ("NVIDIA H20-3e", ""),
        ("NVIDIA GH200 480GB", "gh200_96gb"),
        ("NVIDIA GH200 144G HBM3e", ""),
        ("NVIDIA GeForce RTX 5090", "rtx_5090"),
        ("NVIDIA GeForce RTX 4090 D", ""),
        ("NVIDIA GeForce RTX 3090 Ti", ""),
        ("NVIDIA RTX 6000 Ada Generation", "rtx_6000_ada"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", ""),
        ("AMD Instinct MI308X", "mi308x"),
    ],
)
def test_names_of_drivers_lead_to_the_device_itself(board, device):
    """A board whose name says more is another board: half the memory, another link."""
    assert accelerator_named(board) == device


def test_own_device_by_path(tmp_path: Path):
    """Adding an accelerator is one YAML file."""
    path = tmp_path / "mine.yaml"
    path.write_text((data_root() / "hardware_profiles" / "l4.yaml").read_text())
    assert accelerator(str(path)).id == "mine"
    assert read_accelerator(path).memory_bytes == accelerator("l4").memory_bytes


def test_unknown_device_suggests_near_names():
    with pytest.raises(InputError, match="did you mean mi300x"):
        accelerator("mi300")


def test_sparse_peak_is_refused():
    document = example()
    document["peak"]["fp8"] |= {"value": "3958 TFLOP/s", "basis": "sparse"}
    assert "peak.fp8.basis: sparse (give the dense rate" in problems_of(document)


def test_all_problems_at_once():
    """Law: one reading shows every fault, each with its field."""
    document = example()
    document["memory"] |= {"value": "80 GB/s", "valeu": 1}
    document["memory_bandwidth"]["value"] = 3.35e12
    document["power"]["tdp"]["value"] = "-700 W"
    document["scale_up"]["devices"] = 0
    del document["host_link"]
    text = problems_of(document)
    for part in (
        "memory.value: '80 GB/s'",
        "unknown key 'valeu' (did you mean value?)",
        "memory_bandwidth.value",
        "power.tdp.value",
        "scale_up.devices",
        "host_link: is missing",
    ):
        assert part in text


@pytest.mark.parametrize("value", ["0 GiB", "nan GiB", "inf GiB", "GiB", "80"])
def test_odd_quantities(value):
    document = example()
    document["memory"]["value"] = value
    assert "memory.value" in problems_of(document)


def test_unknown_and_unused_sources():
    document = example()
    document["memory"]["source"] = "drivr"
    text = problems_of(document)
    assert "unknown source 'drivr'" in text and "did you mean driver?" in text
    assert "sources.driver: no number names it" in text


def test_every_field_of_the_domain_is_filled():
    assert {each.name for each in fields(accelerator("cpu"))} >= NUMBERS

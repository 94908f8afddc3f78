"""Which number format a checkpoint is published in, from `quantization_config` and `dtype`.

>>> native_precision(Config("config.json", {"quantization_config": {"quant_method": "mxfp4"}}))
'mxfp4'
>>> native_precision(Config("config.json", {"torch_dtype": "float16"}))
'fp16'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moai_planner.catalog.model_config import Config
from moai_planner.domain.errors import Problem

_BY_METHOD = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "mxfp4": "mxfp4",
    "mxfp8": "fp8",
    "awq": "awq",
    "auto-round": "int4",
    "nvfp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
}
_BY_ALGORITHM = {"FP8": "fp8", "NVFP4": "nvfp4", "MXFP8": "fp8", "MXFP4": "mxfp4", "W4A16_AWQ": "awq"}
_BY_DTYPE = {"float16": "fp16", "half": "fp16"}
_NVFP4_GROUP = 16


def native_precision(config: Config) -> str:
    """Id of a precision; a method that is not known becomes a problem of `config`."""
    quantization = config.part("quantization_config").values
    if not quantization:
        return _BY_DTYPE.get(config.text("dtype", "torch_dtype").removeprefix("torch."), "bf16")
    found = _from_quantization(quantization)
    if not found:
        method = quantization.get("quant_method") or quantization.get("quant_algo")
        known = ", ".join(sorted((*_BY_METHOD, "gptq", "compressed-tensors", "modelopt", "quark")))
        config.problems.append(
            Problem(config.file, "quantization_config.quant_method", repr(method), f"known are {known}")
        )
        return "bf16"
    if config.model_type == "deepseek_v4" and config.text("expert_dtype") != "fp8":
        return "fp4"
    return found


def _from_quantization(quantization: Mapping[str, Any]) -> str:
    method = str(quantization.get("quant_method", "")).lower()
    if method in _BY_METHOD:
        return _BY_METHOD[method]
    if method in ("gptq", "bitsandbytes"):
        eight = quantization.get("bits") == 8 or quantization.get("load_in_8bit")
        return "int8" if eight else "int4"
    algorithm = str(quantization.get("quant_algo", "")).upper()
    if algorithm in _BY_ALGORITHM:
        return _BY_ALGORITHM[algorithm]
    layers = quantization.get("quantized_layers")
    if isinstance(layers, Mapping):  # mixed: the experts' format holds most of the weights
        return _of_mixed(layers)
    return _from_groups(quantization)


def _of_mixed(layers: Mapping[str, Any]) -> str:
    entries = [entry for entry in layers.values() if isinstance(entry, Mapping)]
    found = {_BY_ALGORITHM.get(str(entry.get("quant_algo", "")).upper(), "") for entry in entries}
    return next((name for name in ("nvfp4", "mxfp4", "fp8") if name in found), "")


def _from_groups(quantization: Mapping[str, Any]) -> str:
    """compressed-tensors, modelopt and quark describe weights in groups."""
    if "mxfp4" in str(quantization.get("format", "")):
        return "mxfp4"
    groups = quantization.get("config_groups")
    entries = groups.values() if isinstance(groups, Mapping) else (quantization.get("global_quant_config"),)
    for entry in entries:
        weights = (entry.get("weights") or entry.get("weight")) if isinstance(entry, Mapping) else None
        if isinstance(weights, Mapping):
            name = _of_weights(weights, str(entry.get("format", "")))
            if name:
                return name
    return ""


def _of_weights(weights: Mapping[str, Any], layout: str) -> str:
    kind, dtype = str(weights.get("type", "")), str(weights.get("dtype", ""))
    bits = weights.get("num_bits")
    if "mxfp4" in layout or dtype == "fp4":
        return "mxfp4"
    if dtype.startswith("fp8") or (kind == "float" and bits == 8):
        return "fp8"
    if kind == "float" and bits == 4:
        return "nvfp4" if weights.get("group_size", _NVFP4_GROUP) == _NVFP4_GROUP else "mxfp4"
    if kind == "int" or dtype.startswith("int"):
        return "int4" if bits == 4 or dtype == "int4" else "int8" if bits == 8 or dtype == "int8" else ""
    return ""

"""Models: shipped ones by name, any other by the path of its Hugging Face `config.json`.

>>> model("openai/gpt-oss-120b").native_precision
'mxfp4'
>>> model("gpt-oss-120b") is model("openai/gpt-oss-120b")
True
>>> other = model("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8")
>>> other.native_precision, other.read_as
('fp8', 'meta-llama/Llama-3.1-70B-Instruct')

Shipped files hold only the keys the reader uses, under their Hugging Face names, and `source`; `same_as`
names a shipped model whose keys hold here too.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from moai_planner.catalog.model_attention import read_attention
from moai_planner.catalog.model_config import Config
from moai_planner.catalog.model_feed_forward import read_feed_forward
from moai_planner.catalog.model_names import number_format, same_architecture
from moai_planner.catalog.model_precision import native_precision
from moai_planner.catalog.paths import MODEL_CONFIGS
from moai_planner.catalog.profiled_models import profiled_config, profiled_file
from moai_planner.catalog.yaml_file import near, read_text
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.model import Model
from moai_planner.domain.precision import WIDE_FORMAT
from moai_planner.domain.provenance import Source

_SLASH = "--"
_TIED_BY_DEFAULT = frozenset(
    ["gemma", "gemma2", "gemma3", "gemma4", "cohere", "cohere2", "opt", "gpt2", "falcon", "bloom", "mpt"]
)
_BIASED = frozenset(("qwen2", "qwen2_moe", "phi", "opt", "gpt2", "gpt_neox", "starcoder2", "bloom"))
_DEFAULT_CONTEXT_TOKENS = 2048
_MOST_LAYERS = 10_000
_QUANTIZATION_BESIDE = "hf_quant_config.json"
"""NVIDIA's model optimizer writes the number format here and not always into config.json."""


@lru_cache(maxsize=1)
def model_names() -> tuple[str, ...]:
    """Ids of the shipped models, sorted."""
    return tuple(sorted(path.stem.replace(_SLASH, "/") for path in MODEL_CONFIGS.glob("*.json")))


@lru_cache(maxsize=256)
def model(reference: str, file: str = "model", field: str = "") -> Model:
    """A shipped name, or the path of a `config.json` or of the folder that holds one.

    A name may leave out the organisation and need not match case. A model that was profiled has a name too
    (`profiled_models`). Another upload of a shipped architecture is read as that one (`model_names`), in the
    number format that its name states. `file` and `field` say who asks.
    """
    name = _shipped_name(reference)
    if name:
        return _shipped(name)
    # os.path answers no where pathlib raises: names too long, NUL bytes.
    path = Path(reference)
    if (reference and os.path.exists(path)) or reference.endswith(".json"):
        return _from_path(path)
    measured = profiled_file(reference)
    if measured:
        source = Source(title="profiled model", where=str(measured), kind="measurement")
        return read_model(profiled_config(measured, reference), reference, str(measured), source)
    other = same_architecture(reference, model_names())
    if other:
        return _upload(reference, other)
    remedy = f"{near(reference, model_names())}; or give the path of its Hugging Face config.json"
    raise InputError(Problem(file, field, f"unknown model {reference!r}", remedy))


def read_model(document: dict[str, Any], model_id: str, file: str, source: Source) -> Model:
    """The keys of a `config.json` → Model; InputError with every missing or wrong key."""
    config = Config.from_document(file, document)
    hidden = config.integer("hidden_size", "n_embd", "d_model")
    layers = _layers(config)
    config.raise_problems()
    result = Model(
        id=model_id,
        architecture=config.architecture,
        layers=layers,
        hidden_size=hidden,
        vocabulary_size=config.integer("vocab_size"),
        attention=read_attention(config, layers),
        feed_forward=read_feed_forward(config, layers),
        tied_embeddings=config.flag("tie_word_embeddings", default=config.model_type in _TIED_BY_DEFAULT),
        max_context_tokens=config.integer(
            "max_position_embeddings", "n_positions", "max_sequence_length", default=_DEFAULT_CONTEXT_TOKENS
        ),
        native_precision=native_precision(config),
        attention_bias=config.flag("attention_bias", default=config.model_type in _BIASED),
        mtp_layers=config.integer("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0),
        residual_streams=config.integer("hc_mult", default=1),
        source=source,
    )
    config.problems.extend(_find_odd_shapes(result, file))
    config.raise_problems()
    return result


def _layers(config: Config) -> int:
    pattern = config.values.get("layers_block_type")
    default = len(pattern) if isinstance(pattern, list) and pattern else None
    return config.integer("num_hidden_layers", "n_layer", "num_layers", default=default, most=_MOST_LAYERS)


def _find_odd_shapes(result: Model, file: str) -> list[Problem]:
    odd = [part for part in result.attention if part.kind == "gqa" and part.query_heads % part.kv_heads]
    problems = [
        Problem(
            file,
            "num_key_value_heads",
            str(part.kv_heads),
            f"must divide num_attention_heads, which is {part.query_heads}",
        )
        for part in odd
    ]
    if not result.attention or not result.feed_forward:
        problems.append(Problem(file, "architectures", result.architecture, "no layers that can be planned"))
    return problems


def _shipped_name(reference: str) -> str:
    names = model_names()
    if reference in names:
        return reference
    wanted = reference.lower()
    matches = [name for name in names if wanted in (name.lower(), name.lower().rpartition("/")[2])]
    return matches[0] if len(matches) == 1 else ""


@lru_cache(maxsize=256)
def _shipped(name: str) -> Model:
    document = _shipped_document(name)
    file = shipped_path(name)
    return read_model(document, name, str(file), Source(**document.pop("source")))


def _upload(reference: str, shipped: str) -> Model:
    found = _shipped(shipped)
    own = WIDE_FORMAT if number_format(shipped) else found.native_precision  # the format of the copy we ship
    precision = number_format(reference) or own
    return replace(found, id=reference, native_precision=precision, read_as=shipped)


def _shipped_document(name: str) -> dict[str, Any]:
    document = _read_json(shipped_path(name))
    other = document.pop("same_as", None)
    return _shipped_document(other) | document if other else document


def shipped_path(name: str) -> Path:
    return MODEL_CONFIGS / f"{name.replace('/', _SLASH)}.json"


def _from_path(path: Path) -> Model:
    folder, file = (path, path / "config.json") if os.path.isdir(path) else (path.parent, path)
    source = Source(title="Hugging Face config.json", where=str(file), kind="publication")
    reference = str(folder) if file.name == "config.json" else str(file)
    document = _read_json(file)
    beside = folder / _QUANTIZATION_BESIDE
    if "quantization_config" not in document and beside.is_file():
        document["quantization_config"] = _read_json(beside).get("quantization")
    return read_model(document, reference, str(file), source)


def _read_json(path: Path) -> dict[str, Any]:
    text = read_text(path, "Hugging Face config.json")
    try:
        document = json.loads(text)
    except ValueError as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(
            Problem(str(path), where, "is not JSON", "give a Hugging Face config.json as downloaded")
        ) from error
    if not isinstance(document, dict):
        raise InputError(
            Problem(
                str(path), "", f"a {type(document).__name__} at the top", "give a JSON object with model keys"
            )
        )
    return document

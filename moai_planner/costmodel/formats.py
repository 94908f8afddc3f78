"""Which formats a precision means for a given model.

Four-bit precisions name what they do to experts; checkpoints of mixture models keep the rest wider. A
dense model has no experts: its four-bit checkpoints (NVIDIA's NVFP4, AMD's MXFP4 of Llama-3.3-70B) quantise
every linear layer.

>>> from moai_planner.costmodel.example import llama_8b
>>> from moai_planner.domain.precision import precision
>>> as_stored(llama_8b(), precision("mxfp4")).attention_weights
'mxfp4'
>>> as_stored(llama_8b(), precision("fp8")).attention_weights
'fp8'
"""

from __future__ import annotations

from dataclasses import replace

from moai_planner.domain.model import Model
from moai_planner.domain.precision import Precision, bytes_per_element


def as_stored(model: Model, precision: Precision) -> Precision:
    """The precision with the formats that this model's layers are kept in."""
    narrow = precision.expert_weights
    if model.moe or bytes_per_element(narrow) >= bytes_per_element("fp8"):
        return precision
    return replace(precision, attention_weights=narrow, feed_forward_weights=narrow)

"""Bailian (Qwen) JSON lines: Mooncake's keys, but seconds, blocks of 16 tokens and conversations.

{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.1, "input_length": 20, "output_length": 9,
 "type": "text", "turn": 1, "hash_ids": [1, 2]}
"""

from __future__ import annotations

from moai_planner.catalog.trace_formats import mooncake
from moai_planner.catalog.trace_formats.requests import Source
from moai_planner.domain.workload import Trace

NAME = "bailian-jsonl"
BLOCK_TOKENS = 16


def recognises(head: str) -> bool:
    """Mooncake's keys with a chat_id."""
    return mooncake.recognises(head) and '"chat_id"' in head.split("\n", 1)[0]


def read(source: Source) -> Trace:
    """Seconds and blocks of 16 tokens unless the description says otherwise."""
    return mooncake.read_blocks(source, time_unit_s=1.0, block_tokens=BLOCK_TOKENS)

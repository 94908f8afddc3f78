"""Mooncake JSON lines: milliseconds, lengths, and ids of the prompt's blocks (512 tokens unless said).

    {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}

An id stands for a block together with everything before it, so equal ids mean equal beginnings.
"""

from __future__ import annotations

import numpy as np

from moai_planner.catalog.trace_formats.json_lines import id_lists, numbers, read_objects, renumber
from moai_planner.catalog.trace_formats.requests import Source, build
from moai_planner.domain import units
from moai_planner.domain.workload import Trace

NAME = "mooncake-jsonl"
BLOCK_TOKENS = 512


def recognises(head: str) -> bool:
    """The three keys stand in the first line, and it is not Bailian's."""
    line = head.split("\n", 1)[0]
    return line.lstrip("\ufeff ").startswith("{") and all(
        f'"{key}"' in line for key in ("timestamp", "input_length", "output_length")
    )


def read(source: Source) -> Trace:
    """Milliseconds unless the description gives another `time_unit`."""
    return read_blocks(source, units.MILLI, BLOCK_TOKENS)


def read_blocks(source: Source, time_unit_s: float, block_tokens: int) -> Trace:
    """The same keys with another clock and block size."""
    rows, lines = read_objects(source)
    arrival = numbers(source, rows, lines, "timestamp")
    isl, osl = (numbers(source, rows, lines, key) for key in ("input_length", "output_length"))
    blocks = id_lists(source, rows, lines, "hash_ids")
    hashes, offsets = blocks if blocks else (None, None)
    return build(
        source,
        arrival * (source.options.time_unit_s or time_unit_s),
        isl,
        osl,
        lines,
        block_hashes=hashes,
        block_offsets=offsets,
        block_tokens=(source.options.block_tokens or block_tokens) if blocks else 0,
        session_ids=_conversations(rows),
    )


def _conversations(rows: list[dict]) -> np.ndarray | None:
    """A turn names the request it continues (`chat_id`, `parent_chat_id`); its conversation is that one's."""
    if not all(type(row.get("chat_id")) is int and type(row.get("parent_chat_id")) is int for row in rows):
        return None
    root: dict[int, int] = {}
    for row in rows:
        root[row["chat_id"]] = root.get(row["parent_chat_id"], row["chat_id"])
    return renumber([root[row["chat_id"]] for row in rows])

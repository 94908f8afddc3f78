"""Our own small format: gaps, lengths, and prompts' shared beginnings as "as that request, for so long".

    gap_us,isl,osl,back,shared
    0,6758,500,0,0
    0,7322,490,1,1

The second request came 0 µs after the first, its first block is the first block of the request one line
back. Everything after the shared blocks is new, and a prompt has ⌈isl / block⌉ blocks; so equal
beginnings of prompts are carried exactly in two small numbers. The last two columns are absent where a
trace has no blocks. Equal traces give equal bytes.
"""

from __future__ import annotations

import gzip

import numpy as np

from moai_planner.catalog.trace_formats.requests import Source, build, check_values, refuse
from moai_planner.catalog.trace_formats.table import header_of, read_columns
from moai_planner.domain import units
from moai_planner.domain.errors import Problem
from moai_planner.domain.workload import Trace

NAME = "moai-requests"
COLUMNS = ("gap_us", "isl", "osl")
BLOCK_COLUMNS = ("back", "shared")
DEFAULT_BLOCK_TOKENS = 512
HEAD_BYTES = 512


def recognises(head: str) -> bool:
    """The first columns are ours."""
    return header_of(head)[: len(COLUMNS)] == COLUMNS


def read(source: Source) -> Trace:
    """Sum the gaps, rebuild the block ids."""
    text_head = source.content[:HEAD_BYTES].decode("utf-8", errors="replace")
    blocked = set(BLOCK_COLUMNS) <= set(header_of(text_head))
    names = COLUMNS + BLOCK_COLUMNS if blocked else COLUMNS
    columns, lines = read_columns(source, {name: name for name in names})
    arrival_s = np.cumsum(columns["gap_us"]) * units.MICRO
    hashes, offsets, block_tokens = None, None, 0
    if blocked:
        block_tokens = source.options.block_tokens or DEFAULT_BLOCK_TOKENS
        check_values(source, arrival_s, columns["isl"], columns["osl"], lines)
        counts = -(-columns["isl"].astype(np.int64) // block_tokens)
        _check_links(source, counts, columns["back"], columns["shared"], lines)
        back, shared = columns["back"].astype(np.int64), columns["shared"].astype(np.int64)
        hashes, offsets = _rebuild_blocks(counts, back, shared)
    return build(
        source,
        arrival_s,
        columns["isl"],
        columns["osl"],
        lines,
        block_hashes=hashes,
        block_offsets=offsets,
        block_tokens=block_tokens,
    )


def write(trace: Trace) -> bytes:
    """The trace as a gzip file of this format, the same bytes each time.

    Times are kept to the microsecond. Block ids must form prefixes (equal id = equal prompt so far);
    ValueError where they do not.
    """
    arrival_us = np.rint(trace.arrival_s / units.MICRO).astype(np.int64)
    columns = [np.diff(arrival_us, prepend=0), trace.isl_tokens, trace.osl_tokens]
    names = COLUMNS
    if trace.block_hashes is not None and trace.block_offsets is not None:
        columns += list(_link_prefixes(trace))
        names = COLUMNS + BLOCK_COLUMNS
    rows = "\n".join(",".join(map(str, row)) for row in zip(*(c.tolist() for c in columns), strict=True))
    return gzip.compress(f"{','.join(names)}\n{rows}\n".encode(), compresslevel=9, mtime=0)


def _check_links(
    source: Source, counts: np.ndarray, back: np.ndarray, shared: np.ndarray, lines: np.ndarray
) -> None:
    row = np.arange(len(counts))
    wrong = (back < 0) | (back > row) | (shared < 0) | (shared > counts) | ((back == 0) & (shared > 0))
    wrong |= (back != np.floor(back)) | (shared != np.floor(shared))
    parent = np.where(wrong, row, row - back).astype(np.int64)
    wrong |= shared > counts[parent]
    if wrong.any():
        remedy = "point back to a request that is there, and share no more blocks than both have"
        refuse(
            source.file,
            [Problem(source.file, f"line {lines[at]}", "", remedy) for at in np.flatnonzero(wrong)],
        )


def _rebuild_blocks(
    counts: np.ndarray, back: np.ndarray, shared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    fresh = counts - shared
    first_fresh = (np.cumsum(fresh) - fresh).tolist()
    hashes = np.empty(offsets[-1], dtype=np.int64)
    starts, ends = offsets[:-1].tolist(), offsets[1:].tolist()
    for row, (start, end, distance, common) in enumerate(
        zip(starts, ends, back.tolist(), shared.tolist(), strict=True)
    ):
        if common:
            origin = starts[row - distance]
            hashes[start : start + common] = hashes[origin : origin + common]
        hashes[start + common : end] = np.arange(first_fresh[row], first_fresh[row] + end - start - common)
    return hashes, offsets


def _link_prefixes(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """For each request how far back the last one with the longest common beginning is, and its blocks."""
    last_holder: dict[int, tuple[int, int]] = {}
    back, shared = np.zeros(len(trace), dtype=np.int64), np.zeros(len(trace), dtype=np.int64)
    for row in range(len(trace)):
        ids = trace.block_hashes[trace.block_offsets[row] : trace.block_offsets[row + 1]].tolist()
        if len(ids) != -(-int(trace.isl_tokens[row]) // trace.block_tokens):
            raise ValueError(f"request {row} has {len(ids)} blocks of {trace.block_tokens} tokens")
        known = [block in last_holder for block in ids]
        common = known.index(False) if False in known else len(ids)
        if any(known[common:]) or any(last_holder[b][1] != at for at, b in enumerate(ids[:common])):
            raise ValueError(f"block ids of request {row} do not form a prefix")
        if common:
            back[row], shared[row] = row - last_holder[ids[common - 1]][0], common
        last_holder.update((block, (row, at)) for at, block in enumerate(ids))
    return back, shared

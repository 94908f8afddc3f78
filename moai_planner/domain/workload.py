"""Requests: a trace as arrays, and its summary as cells with rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival. All arrays [n] unless said."""

    name: str
    arrival_s: np.ndarray
    "Seconds from the start of the trace, not decreasing."
    isl_tokens: np.ndarray
    "int64, prompt length, ≥ 1."
    osl_tokens: np.ndarray
    "int64, generated length, ≥ 1."
    duration_s: float
    "Span that the requests stand for; the mean rate is n / duration_s."
    block_hashes: np.ndarray | None = None
    "int64 [m] ids of the prompts' blocks, request after request; equal id = equal prefix so far."
    block_offsets: np.ndarray | None = None
    "int64 [n + 1]: request i owns block_hashes[offsets[i]:offsets[i + 1]]."
    block_tokens: int = 0
    "Tokens a hashed block holds."
    session_ids: np.ndarray | None = None
    "int64, requests of one conversation share an id."
    source: str = ""
    left_out: tuple[tuple[str, int], ...] = ()
    "Reason → requests or lines of the file that are not here."

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate_req_per_s(self) -> float:
        return len(self) / self.duration_s


@dataclass(frozen=True)
class Cell:
    """Requests of similar length, planned together."""

    id: str
    isl_tokens: float
    "Mean prompt length of the cell's requests."
    osl_tokens: float
    "Mean generated length."
    isl_squared_tokens: float
    "Mean of the squared prompt length (attention work grows with it)."
    isl_max_tokens: int
    osl_max_tokens: int
    cached_frac: float
    "Share of prompt tokens that an ideal prefix cache would hold already."
    rate_req_per_s: float
    "Mean over the window."
    context_tokens: float = 0.0
    "Mean context over the life of the cell's decode tokens: Σ osl·(isl + osl/2) / Σ osl over its requests."


@dataclass(frozen=True)
class Window:
    """A span of the trace with its own rates."""

    name: str
    start_s: float
    end_s: float
    cells: tuple[Cell, ...]
    burstiness_cv: float
    "Coefficient of variation of the inter-arrival times (1 = Poisson)."

    @property
    def rate_req_per_s(self) -> float:
        return sum(cell.rate_req_per_s for cell in self.cells)


@dataclass(frozen=True)
class Workload:
    """A trace as the programme sees it."""

    trace: str
    windows: tuple[Window, ...]

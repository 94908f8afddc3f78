"""measurements.csv → `Run` values. Strict: unknown columns, broken numbers and double ids are problems with
their line; rows without what a prediction needs are listed as unsupported with the reason; no row is dropped.

measurements = read_measurements(Path("measurements.csv"))     # .gz too
len(measurements.runs) + len(measurements.unsupported)         # = rows of the file
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from moai_planner.accuracy.lengths import DIALOGUE_CV
from moai_planner.accuracy.measurement_table import (
    Row,
    Table,
    length_range,
    parse_table,
    read_table,
    stated_cv,
)
from moai_planner.accuracy.recipes import has_moreh_preset, recipe_of
from moai_planner.accuracy.run import (
    DP_NOT_GIVEN,
    METRICS,
    MONTH,
    RATES,
    Measurements,
    Run,
    Unsupported,
    Workers,
)
from moai_planner.domain.units import MILLI, parse

REQUESTS_PER_CONCURRENCY = 10
"Requests of a run with a concurrency that states no number (InferenceX and its descendants send ten times)."
STEADY_TURNS = 1000
MOST_DRAFTED = 4.5
"""Time between events over time per token that speculative decoding alone may explain."""
STREAM_EVENTS_TOLERANCE = 0.1
SHARED_PROMPTS = 45
"""Different prompts of inference-perf's `shared_prefix` generator where a row does not say: groups × users of
the load profiles that BLIS publishes with its runs (9 × 5, 11 × 4, 10 × 5)."""
BLOCK_TOKENS = 16
YEAR = re.compile(r"\d{4}")
ONE_STEP = "two tokens generated (only the first step was measured)"
READ_DRAFTS = ("none", "mtp", "draft")
"""How a `spec_decode` begins that is understood."""
SHOWN = 40
"""Characters of a cell that a note repeats."""


def read_measurements(path: Path) -> Measurements:
    """Read a table. InputError with every problem of the file."""
    return _measurements(read_table(path))


def parse_measurements(text: str, file: str) -> Measurements:
    """The same from text."""
    return _measurements(parse_table(text, file))


def _measurements(table: Table) -> Measurements:
    outcomes = [_read_row(row) for row in table.rows]
    return Measurements(
        tuple(one for one in outcomes if isinstance(one, Run)),
        tuple(one for one in outcomes if isinstance(one, Unsupported)),
        table.ignored,
    )


class _Missing(Exception):
    """The row lacks something a prediction needs; the text is the reason shown."""


def _read_row(row: Row) -> Run | Unsupported:
    cells, assumed = row.cells, []
    try:
        return _run(cells, dict(row.numbers), assumed)
    except _Missing as missing:
        return Unsupported(cells["id"], cells.get("source", ""), cells.get("split", ""), str(missing))


def _run(cells: Mapping[str, str], number: dict[str, float], assumed: list[str]) -> Run:
    metrics = {name: number[name] for name in METRICS if name in number}
    notes = cells.get("notes", "")
    isl, osl = _lengths(cells, number, assumed)
    if ONE_STEP in assumed:  # a rate there is the batch over that step: the same figure again
        metrics = {name: value for name, value in metrics.items() if not name.startswith(RATES)}
    cv = _cv(cells, number, assumed)
    workers = _workers(cells, number, assumed)
    rate = re.search(r"arrivals, (\d+)/s", notes)
    if rate and "request_rate" not in number:
        number["request_rate"] = float(rate[1])
    arrivals = _arrivals(number, notes)
    concurrency = number.get("concurrency", 0.0)
    requests = int(number.get("n_requests", 0))
    if not requests and not concurrency and arrivals == "static":
        raise _Missing("neither concurrency nor n_requests is given")
    if not requests and not concurrency and arrivals == "offline":
        requests = STEADY_TURNS  # enough to be saturated
        assumed.append(f"n_requests {requests}")
    if not requests:
        turns = STEADY_TURNS if arrivals == "open" and not concurrency else REQUESTS_PER_CONCURRENCY
        requests = max(1, round(concurrency if arrivals == "static" else max(1, concurrency) * turns))
        assumed.append(f"n_requests {requests}")
    if "steady state only" in notes:
        requests = max(requests, round(concurrency * STEADY_TURNS))  # ramp and drain were cut off
    if arrivals == "static":
        requests = concurrency = max(1, round(concurrency)) if concurrency else requests
    elif arrivals == "offline":
        concurrency = concurrency or requests
    elif concurrency:
        concurrency = min(concurrency, requests)  # no more in flight than were sent
    hit_frac = number.get("prefix_hit_frac", 0.0)
    distinct = 1
    shared = re.search(r"shared[_ ](prefix|prompt)", notes) and "prefix cache on" in notes
    if shared and "prefix_hit_frac" not in number:
        distinct = SHARED_PROMPTS
        hit_frac = _repeated_hit_frac(isl, requests, distinct)
        assumed.append(f"prefix_hit_frac {hit_frac:.3f} ({distinct} prompts sent again and again)")
    if cells.get("date") and not (MONTH.match(cells["date"]) or YEAR.fullmatch(cells["date"])):
        assumed.append(f"date {cells['date'][:SHOWN]} is not like 2026-01-31: taken as recent")
    drafts = cells.get("spec_decode", "")
    if drafts and not drafts.startswith(READ_DRAFTS):
        assumed.append(f"spec_decode {drafts[:SHOWN]} as mtp")
    events = _events_per_token(metrics, osl)
    if events > 1.0:
        assumed.append("two stream events a token (its own times say so)")
    recipe = recipe_of(
        f"{cells.get('source', '')} {notes}",
        workers[-1].engine,
        cells["model"],
        workers[-1].accelerator,
        concurrency,
        number.get("isl", isl),
    )
    return Run(
        id=cells["id"],
        source=cells.get("source", ""),
        date=cells.get("date", ""),
        model=cells["model"],
        precision=cells.get("precision", ""),
        engine_version=cells.get("engine_version", ""),
        workers=workers,
        kv_connector=cells.get("kv_connector", ""),
        spec_decode=cells.get("spec_decode", "") or "none",
        arrivals=arrivals,
        isl_tokens=isl,
        osl_tokens=osl,
        length_low_frac=_low_frac(cells),
        isl_cv=cv,
        osl_cv=cv,
        equal_lengths=_equal_lengths(cells, number, assumed),
        concurrency=concurrency,
        request_rate=number.get("request_rate", 0.0),
        requests=requests,
        prefix_hit_frac=hit_frac,
        distinct_prompts=distinct,
        max_num_seqs=_stated(notes, "max_num_seqs"),
        max_num_batched_tokens=_stated(notes, "max_num_batched_tokens") or recipe.max_num_batched_tokens,
        prefill_batched_tokens=recipe.prefill_batched_tokens,
        memory_frac=recipe.memory_frac,
        graphs=recipe.graphs,
        kv="fp8" if "KV cache fp8" in notes else recipe.kv,
        split=cells.get("split", ""),
        notes=notes,
        network_bytes_per_s=_network(notes),
        events_per_token=events,
        tokens_per_event=_tokens_per_event(metrics),
        assumed=tuple(assumed),
        metrics=metrics,
    )


def _lengths(cells: Mapping[str, str], number: dict[str, float], assumed: list[str]) -> tuple[float, float]:
    """Mean lengths, the middle of a stated spread where no mean is given. Without a spread the nominal output
    length is what the engine was told to generate, and a different `osl_mean` is the client's recount of the
    text."""
    spread = cells.get("length_spread", "")
    middle = sum(length_range(spread) or (1.0, 1.0)) / 2
    if middle != 1.0 and not {"isl_mean", "osl_mean"} <= set(number):
        assumed.append(f"mean lengths {middle:g} of the nominal ones ({spread})")
    isl = number.get("isl_mean", number.get("isl", 0.0) * middle)
    told = number.get("osl", 0.0) * middle
    osl = number.get("osl_mean", told) if spread or not told else told
    if not osl and "itl_ms_mean" in number:
        osl = 2.0
        assumed.append(ONE_STEP)
    if not isl or not osl:
        raise _Missing("isl or osl is not given")
    return isl, osl


def _low_frac(cells: Mapping[str, str]) -> float:
    shortest, longest = length_range(cells.get("length_spread", "")) or (1.0, 1.0)
    return shortest / longest


def _cv(cells: Mapping[str, str], number: Mapping[str, float], assumed: list[str]) -> float:
    """Deviation of lengths over their mean, where they are not uniform: stated, or that of dialogues where a
    nominal length is no whole number, so a mean of different ones."""
    spread = cells.get("length_spread", "")
    if spread:
        return stated_cv(spread)
    nominal = [number[name] for name in ("isl", "osl") if name in number]
    nominal = nominal or [number[name] for name in ("isl_mean", "osl_mean") if name in number]
    if all(length.is_integer() for length in nominal):
        return 0.0
    assumed.append(f"length_spread cv {DIALOGUE_CV:g} (lengths of dialogues)")
    return DIALOGUE_CV


def _arrivals(number: Mapping[str, float], notes: str) -> str:
    if "static batch" in notes:
        return "static"
    if "offline" in notes or "all requests queued" in notes:
        return "offline"
    if "request_rate" in number:
        return "open"
    if "concurrency" not in number:
        raise _Missing("neither concurrency nor request_rate is given")
    return "closed"


def _workers(cells: Mapping[str, str], number: dict[str, float], assumed: list[str]) -> tuple[Workers, ...]:
    engines = cells["engine"].split("+")
    accelerators = cells["accelerator"].split("+")
    if cells["topology"] == "colocated":
        if len(engines) > 1 or len(accelerators) > 1:
            raise _Missing("colocated on more than one kind of accelerator or engine")
        return (_colocated(cells, number, assumed),)
    if len(engines) > 2 or len(accelerators) > 2:
        raise _Missing("more than one kind of prefill or decode worker")
    return tuple(
        _pool(
            role,
            cells,
            number,
            engines[min(i, len(engines) - 1)],
            accelerators[min(i, len(accelerators) - 1)],
            assumed,
        )
        for i, role in enumerate(("prefill", "decode"))
    )


def _equal_lengths(cells: Mapping[str, str], number: dict[str, float], assumed: list[str]) -> bool:
    spread = cells.get("length_spread", "")
    if spread:
        return _low_frac(cells) == 1.0 and not stated_cv(spread)
    nominal = all(name in number and number[name] == number.get(f"{name}_mean") for name in ("isl", "osl"))
    if nominal:
        assumed.append("length_spread fixed (both means are the nominal lengths)")
    return nominal


def _colocated(cells: Mapping[str, str], number: dict[str, float], assumed: list[str]) -> Workers:
    devices = int(number.get("n_accelerators", 0))
    tp, dp, pp = (int(number.get(name, 0)) for name in ("tp", "dp", "pp"))
    ep = int(number.get("ep", 1))
    if not tp and not dp:
        if not devices:
            raise _Missing("neither tp nor n_accelerators is given")
        if has_moreh_preset(cells["engine"], cells["model"]):
            dp = ep = devices
            assumed.append(f"dp {dp} ep {ep} (all devices, as the engine's presets)")
        else:
            tp = devices
            assumed.append(f"tp {tp} (all devices)")
    tp, dp, pp = max(tp, 1), max(dp, 1), max(pp, 1)
    each = tp * dp * pp
    if devices and devices % each:
        raise _Missing(f"{devices} devices are not a multiple of tp x dp x pp = {each}")
    return Workers(
        accelerator=cells["accelerator"],
        engine=cells["engine"],
        count=devices // each if devices else 1,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
    )


def _pool(
    role: str,
    cells: Mapping[str, str],
    number: dict[str, float],
    engine: str,
    accelerator: str,
    assumed: list[str],
) -> Workers:
    """One pool. Experts spread over more ranks than tp x dp are those of data-parallel attention ranks that
    the row does not count; a `dp` left empty is 1 unless a prediction finds that the model cannot fit."""
    count = int(number.get(f"{role}_workers", 0))
    tp, dp = (int(number.get(f"{role}_{name}", 0)) for name in ("tp", "dp"))
    if not count or not (tp or dp):
        raise _Missing(f"the layout of the {role} workers is not given")
    ep = int(number.get(f"{role}_ep", 1))
    tp, stated = max(tp, 1), dp
    dp = max(dp, -(-ep // tp))
    if dp > max(stated, 1):
        assumed.append(f"{role} dp {dp} (as many ranks as hold experts)")
    elif not stated:
        assumed.append(f"{role} {DP_NOT_GIVEN}")
    accelerator = cells.get(f"{role}_accelerator") or accelerator
    return Workers(accelerator, engine, count, tp, 1, dp, ep)


def _stated(notes: str, name: str) -> int:
    match = re.search(rf"\b{name}=(\d+)", notes)
    return int(match[1]) if match else 0


def _repeated_hit_frac(isl_tokens: float, requests: int, distinct: int) -> float:
    """Prompt tokens in the cache when the same prompts come again and again.

    Whole blocks are found, the last token is always computed, each prompt is new once.

    >>> round(_repeated_hit_frac(592, 3000, 45), 3)       # 36 of 37 blocks, 98.5 % of requests
    0.958
    """
    blocks = int(isl_tokens - 1) // BLOCK_TOKENS
    return blocks * BLOCK_TOKENS / isl_tokens * max(0.0, 1.0 - distinct / requests)


def _tokens_per_event(metrics: Mapping[str, float]) -> float:
    """Tokens a stream event carries: time between events over time per token, when well above drafting.

    >>> _tokens_per_event({"itl_ms_mean": 198.9, "tpot_ms_mean": 20.0})
    10.0
    """
    for statistic in ("mean", "median"):
        itl, tpot = metrics.get(f"itl_ms_{statistic}"), metrics.get(f"tpot_ms_{statistic}")
        if itl and tpot:
            return float(round(itl / tpot)) if itl / tpot > MOST_DRAFTED else 1.0
    return 1.0


def _network(notes: str) -> float:
    """Network of a node where the notes say it ("200 Gb/s").

    >>> _network("one node of 8 a side, 200 Gb/s ConnectX-6")
    25000000000.0
    """
    match = re.search(r"(\d+) Gb/s", notes)
    return parse(f"{match[1]} Gbit/s", "bytes_per_s") if match else 0.0


def _events_per_token(metrics: Mapping[str, float], osl_tokens: float) -> float:
    """Stream events that the client counted for each token.

    E2E minus TTFT, over the mean time between events, over the tokens generated after the first. Two is a
    client that counts two events a token (a text and an empty one); anything else is read as 1. Found from
    definitions alone: no prediction enters.

    >>> row = {"e2el_s_mean": 3.61, "ttft_ms_mean": 44.5, "tpot_ms_mean": 7.2}
    >>> _events_per_token(row, 249)
    2.0
    """
    each_ms = metrics.get("tpot_ms_mean", metrics.get("itl_ms_mean"))
    if each_ms is None or not {"e2el_s_mean", "ttft_ms_mean"} <= metrics.keys() or osl_tokens < 2:
        return 1.0
    events = (metrics["e2el_s_mean"] / MILLI - metrics["ttft_ms_mean"]) / each_ms / (osl_tokens - 1)
    return 2.0 if abs(events / 2.0 - 1.0) < STREAM_EVENTS_TOLERANCE else 1.0

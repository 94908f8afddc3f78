"""Runs → what a prediction computes with: each distinct engine configuration once, and a record per run.

prepared = prepare(runs, model_of, accelerator_of, parameters_of)
prepared.configurations        # distinct engines, in order of first use
prepared.records               # `steady.RUN`, one per predictable run
prepared.unsupported           # the others, with reasons

Settings that a run does not state are the engine's defaults, listed here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moai_planner.accuracy import steady
from moai_planner.accuracy.draft import drafting
from moai_planner.accuracy.lengths import length_cv
from moai_planner.accuracy.recipes import (
    decode_slots,
    follows_recipe,
    hold_steps,
    receive_steps,
    reduce_bits,
    starts_cold,
)
from moai_planner.accuracy.run import DP_NOT_GIVEN, Run, Unsupported, Workers
from moai_planner.costmodel.checks import layout_problems, precision_problems
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.serving import kv_transfer, memory_budget
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.corrections import measured_as
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.measured import MeasuredPoint
from moai_planner.domain.model import Model
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.precision import PRECISIONS, Precision
from moai_planner.domain.units import GIBI

ModelOf = Callable[[str], Model]
AcceleratorOf = Callable[[str], Accelerator]
ParametersOf = Callable[[Accelerator, str, Precision], Parameters]
MeasuredOf = Callable[[Accelerator, str, Model, Precision, Layout], tuple[MeasuredPoint, ...] | OperatorTable]
"""Steps or operators that were timed of a configuration; empty where none were."""

DEVICES_PER_NODE = 8
PROMPT_BUDGET_TOKENS = {
    "vllm": 8192,
    "moreh-vllm": 8192,
    "atom": 16384,
    "sglang": 16384,
    "trtllm": 8192,
    "tt-metal": 8192,
}
"""Prompt tokens that one step may hold, by engine (their defaults on large devices)."""
DEFAULT_BUDGET_TOKENS = 8192
FOUR_BIT_EXPERTS, NAMED_BY_A_PART = "fp4", ("fp8", "mxfp4")
"""A checkpoint with experts in 4 bits and the rest in 8: rows name it by the one or the other."""
LARGE_MEMORY_BYTES = 70 * GIBI
SMALL_BUDGET_TOKENS = 2048
VLLM_SEQUENCES, SMALL_SEQUENCES = 1024, 256
"""vLLM's server: 8192 tokens and 1024 sequences on devices of 70 GiB and more that are newer than Ampere,
else 2048 and 256 (`EngineArgs.get_batch_defaults`)."""
SEPARATE_PREFILL = ("sglang", "atom", "tt-metal")
"""Engines that run prompts in steps of their own instead of beside decoding."""
ONE_BY_ONE = ("tt-metal",)
"""Engines that compute the prompts of a batch one by one and report the time of one (104 ms on one n150 are
too few at its peak for 32 prompts of 128 tokens of an 8B model)."""
ASYNCHRONOUS_SINCE = {"vllm": (0, 14), "moreh-vllm": (0, 14)}
"""Release from which an engine prepares the next step while the device computes (vLLM v0.14.0 release notes:
asynchronous scheduling on by default). An engine that states no release is taken as a newer one."""
MEMORY_FRAC = 0.9
HIGHEST_MEMORY_FRAC = 0.97
"""What is taken where the usual share leaves no room for one request: whoever ran it raised the share."""
LONGEST_REASON, SHOWN = 300, 40
SMALLEST_TABLE = 256
LARGEST_TABLE = 8192
_ARRIVALS = {
    "closed": steady.CLOSED,
    "open": steady.OPEN,
    "static": steady.STATIC,
    "offline": steady.OFFLINE,
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Runs ready to predict; `groups[i]` names the parameters of configuration i."""

    runs: tuple[Run, ...]
    unsupported: tuple[Unsupported, ...]
    configurations: tuple[Configuration, ...]
    groups: tuple[tuple[str, str, str], ...]
    "(accelerator id, engine or the library behind it, number format) of each configuration."
    records: np.ndarray

    @property
    def decoders(self) -> list[Configuration]:
        """[run] the configuration that decodes."""
        return [self.configurations[i] for i in self.records["decode"]]


def nothing_measured(*_: object) -> tuple[MeasuredPoint, ...]:
    """Every step time comes from the model: what a fit needs."""
    return ()


def prepare(
    runs: Sequence[Run],
    model_of: ModelOf,
    accelerator_of: AcceleratorOf,
    parameters_of: ParametersOf,
    measured_of: MeasuredOf = nothing_measured,
) -> Prepared:
    """Resolve names, share configurations, collect what cannot be predicted."""
    table = _Table(model_of, accelerator_of, parameters_of, measured_of)
    kept: list[Run] = []
    left_out: list[Unsupported] = []
    records: list[tuple] = []
    for run in runs:
        try:
            records.append(table.record(run))
            kept.append(_noting(run, model_of(run.model).read_as, table.remarks(run)))
        except InputError as error:
            left_out.append(_left_out(run, _reason(error.problems[0])))
        except _CannotPredict as reason:
            left_out.append(_left_out(run, str(reason)))
    return Prepared(
        runs=tuple(kept),
        unsupported=tuple(left_out),
        configurations=tuple(table.configurations),
        groups=tuple(table.groups),
        records=np.array(records, dtype=steady.RUN),
    )


class _CannotPredict(Exception):
    """The reason shown."""


def _reason(problem: Problem) -> str:
    """What is wrong and what would help, in words: the place only where the value does not say it all."""
    named = problem.value.startswith("unknown ")
    said = f"{problem.value} ({problem.remedy})" if named else str(problem)
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}…"


def _noting(run: Run, read_as: str, remarks: Sequence[str]) -> Run:
    notes = [*([f"sizes of {read_as}"] if read_as else []), *remarks]
    return replace(run, assumed=(*run.assumed, *notes)) if notes else run


def _left_out(run: Run, reason: str) -> Unsupported:
    return Unsupported(run.id, run.source, run.split, reason)


class _Table:
    """Distinct configurations, by everything that tells them apart."""

    def __init__(self, model_of, accelerator_of, parameters_of, measured_of):
        self.model_of, self.accelerator_of, self.parameters_of = model_of, accelerator_of, parameters_of
        self.measured_of = measured_of
        self.configurations: list[Configuration] = []
        self.groups: list[tuple[str, str, str]] = []
        self._index: dict[tuple, int] = {}
        self._room: dict[tuple, float] = {}
        self._remarks: defaultdict[str, list[str]] = defaultdict(list)

    def record(self, run: Run) -> tuple:
        model = self.model_of(run.model)
        first, last = run.workers[0], run.workers[-1]
        accelerator = self.accelerator_of(last.accelerator)
        draft = drafting(run, model, accelerator.platform)
        decode = self._configuration(run, model, last, draft.tokens)
        prefill = self._configuration(run, model, first, 0.0, True) if run.disaggregated else decode
        staged, token_s = self._transfer(run, prefill, decode)
        kv_tokens = self._kv_tokens(run, decode)
        engine = self.configurations[prefill].engine
        library = measured_as(last.engine, accelerator.platform)
        return (
            prefill,
            decode,
            int(run.disaggregated),
            _ARRIVALS[run.arrivals],
            run.concurrency,
            run.request_rate,
            run.requests,
            run.isl_tokens,
            run.osl_tokens,
            length_cv(run),
            run.prefix_hit_frac,
            first.count,
            first.dp,
            last.count,
            last.dp,
            engine.max_num_batched_tokens,
            min(_most_sequences(run, accelerator), decode_slots(run)),
            kv_tokens,
            int(library in SEPARATE_PREFILL),
            int(library in ONE_BY_ONE),
            int(_comes_in_waves(run)),
            hold_steps(run),
            receive_steps(run, accelerator),
            draft.tokens,
            1.0,
            draft.cost_frac,
            float(starts_cold(run)),
            0.0,
            token_s,
            0.0,
            staged,
        )

    def _configuration(
        self, run: Run, model: Model, workers: Workers, draft_tokens: float, prompts_only: bool = False
    ) -> int:
        accelerator = self.accelerator_of(workers.accelerator)
        precision = _precision(run, model)
        for problem in precision_problems(precision, accelerator.platform, "", "precision"):
            raise _CannotPredict(f"{problem.field} {problem.value}: {problem.remedy}")
        instances = workers.count * workers.dp
        load = run.concurrency or run.requests
        most = min(load / instances, _most_sequences(run, accelerator))
        sequences = _table_size(most * (1.0 + draft_tokens))
        own_settings = prompts_only and run.prefill_batched_tokens > 0
        budget = run.prefill_batched_tokens if own_settings else run.max_num_batched_tokens
        engine = Engine(
            name=workers.engine,
            max_num_seqs=sequences,
            max_num_batched_tokens=budget or _prompt_budget(workers.engine, accelerator),
            max_model_len=int(run.isl_tokens + run.osl_tokens) + 1,
            memory_utilization_frac=run.memory_frac or MEMORY_FRAC,
            prefix_caching=run.prefix_hit_frac > 0,
            async_scheduling=_asynchronous(workers.engine, run.engine_version),
            graphs=run.graphs,
            prompts_only=own_settings,
            rows_per_sequence=1 + round(draft_tokens),
            reduce_bits=reduce_bits(run, workers, accelerator),
        )
        layout = Layout(workers.tp, workers.pp, workers.dp, min(workers.ep, workers.tp * workers.dp))
        for problem in layout_problems(model, replace(layout, ep=1)):
            self._remarks[run.id].append(f"{problem.field} {problem.value}, though {problem.remedy}")
        key = (workers.accelerator, run.model, precision, layout, engine, run.network_bytes_per_s)
        if key not in self._index:
            per_node = max(DEVICES_PER_NODE, accelerator.scale_up.devices)
            configuration = Configuration(
                accelerator=accelerator,
                model=model,
                precision=precision,
                layout=layout,
                engine=engine,
                devices_per_node=per_node,
                network_bytes_per_s=run.network_bytes_per_s or accelerator.scale_out_bytes_per_s * per_node,
                parameters=self.parameters_of(accelerator, workers.engine, precision),
                measured=self.measured_of(accelerator, workers.engine, model, precision, layout),
            )
            self._index[key] = len(self.configurations)
            self.configurations.append(configuration)
            library = measured_as(workers.engine, accelerator.platform)
            self.groups.append((accelerator.id, library, precision.kernels))
        return self._index[key]

    def _kv_tokens(self, run: Run, index: int) -> float:
        """KV tokens of a rank. A model that does not fit by our estimate ran all the same, so its room is
        not known and does not bind; but one that cannot be where the row leaves its layout open is not
        predicted."""
        c = self.configurations[index]
        held = replace(c.engine, max_num_seqs=self._sequences_held(run, c))
        key = (index, held.max_num_seqs)
        if key not in self._room:
            room = memory_budget(replace(c, engine=held)).kv_tokens
            if room < held.max_model_len:
                raised = replace(held, memory_utilization_frac=HIGHEST_MEMORY_FRAC)
                room = memory_budget(replace(c, engine=raised)).kv_tokens
            self._room[key] = float(room) if room >= held.max_model_len else np.inf
        if self._room[key] == np.inf and any(DP_NOT_GIVEN in text for text in run.assumed):
            raise _CannotPredict("the data-parallel ranks are not given, and one cannot hold the model")
        if self._room[key] == np.inf:
            self._remarks[run.id].append("KV without a limit (by our estimate the model does not fit)")
        return self._room[key]

    def remarks(self, run: Run) -> list[str]:
        """Why the run is predicted as if something were not in its way: measured runs ran."""
        return list(dict.fromkeys(self._remarks[run.id]))

    def _sequences_held(self, run: Run, c: Configuration) -> int:
        """For how many sequences a rank keeps memory to sample: its limit, or as many as there are."""
        limit = _most_sequences(run, c.accelerator)
        if limit < LARGEST_TABLE:
            return limit
        last = run.workers[-1]
        load = (run.concurrency or run.requests) / (last.count * last.dp)
        return max(1, min(limit, round(load * c.engine.rows_per_sequence)))

    def _transfer(self, run: Run, prefill: int, decode: int) -> tuple[int, float]:
        """Whether KV passes through host memory, and seconds a token at the network's full rate."""
        if not run.disaggregated:
            return 0, 0.0
        connector = "lmcache" if run.kv_connector == "host_staged" else "nixl"
        sender, receiver = self.configurations[prefill], self.configurations[decode]
        moved = kv_transfer(sender, receiver, connector)
        share = min(_network_share(sender), _network_share(receiver))
        if share <= 0:
            raise _CannotPredict("the network between the nodes is not known")
        return int(moved.staged), moved.bytes_per_token / share


def _network_share(c: Configuration) -> float:
    return c.network_bytes_per_s * min(1.0, c.layout.devices / c.devices_per_node)


def _precision(run: Run, model: Model) -> Precision:
    name = run.precision or model.native_precision
    if name not in PRECISIONS:
        raise _CannotPredict(f"precision {name[:SHOWN]} is not known (one of {', '.join(PRECISIONS)})")
    if model.native_precision == FOUR_BIT_EXPERTS and name in NAMED_BY_A_PART:
        name = FOUR_BIT_EXPERTS
    precision = PRECISIONS[name]
    return precision.with_kv(run.kv) if run.kv else precision


def _comes_in_waves(run: Run) -> bool:
    """Whether the requests start and end together: equal ones in a closed loop, where prompts run before
    decoding, or with one on each of several ranks in lockstep."""
    if run.disaggregated or not run.equal_lengths or run.arrivals != "closed" or run.osl_tokens <= 1:
        return False
    last = run.workers[-1]
    return last.engine in SEPARATE_PREFILL or 1 < run.concurrency / last.count <= last.dp


def _is_large(accelerator: Accelerator) -> bool:
    return accelerator.memory_bytes >= LARGE_MEMORY_BYTES and accelerator.architecture.lower() != "ampere"


def _prompt_budget(engine: str, accelerator: Accelerator) -> int:
    if engine == "vllm" and not _is_large(accelerator):
        return SMALL_BUDGET_TOKENS
    return PROMPT_BUDGET_TOKENS.get(engine, DEFAULT_BUDGET_TOKENS)


def _most_sequences(run: Run, accelerator: Accelerator) -> int:
    """Sequences that a rank decodes at once. A recipe allows its closed loop's concurrency; else the
    server's default holds. Batches given to the engine directly are taken as one."""
    if run.max_num_seqs:
        return run.max_num_seqs
    by_recipe = run.concurrency > 0 and follows_recipe(run)
    if by_recipe or run.arrivals not in ("open", "closed") or run.workers[-1].engine != "vllm":
        return LARGEST_TABLE
    return VLLM_SEQUENCES if _is_large(accelerator) else SMALL_SEQUENCES


def _asynchronous(engine: str, version: str) -> bool:
    """Whether scheduling overlaps with the device.

    >>> _asynchronous("vllm", "0.12.0"), _asynchronous("vllm", "0.18.0"), _asynchronous("vllm", "")
    (False, True, True)
    """
    stated = re.match(r"(\d+)\.(\d+)", version)
    if engine not in ASYNCHRONOUS_SINCE or stated is None:
        return True
    return (int(stated[1]), int(stated[2])) >= ASYNCHRONOUS_SINCE[engine]


def _table_size(sequences: float) -> int:
    """Powers of two, so that runs of one engine at several concurrencies share a table.

    >>> _table_size(3), _table_size(257)
    (256, 512)
    """
    size = SMALLEST_TABLE
    while size < sequences and size < LARGEST_TABLE:
        size *= 2
    return size


def subset(prepared: Prepared, indices: Sequence[int]) -> Prepared:
    """Some of the runs, with the configurations that they use."""
    records = prepared.records[list(indices)].copy()
    used, places = np.unique([records["prefill"], records["decode"]], return_inverse=True)
    records["prefill"], records["decode"] = places.reshape(2, -1)
    return replace(
        prepared,
        runs=tuple(prepared.runs[i] for i in indices),
        configurations=tuple(prepared.configurations[i] for i in used),
        groups=tuple(prepared.groups[i] for i in used),
        records=records,
    )

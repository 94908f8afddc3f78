"""What `estimate` was asked, checked and answered: flags in, predictions out, nothing printed."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import parameters_for
from moai_planner.catalog.yaml_file import near
from moai_planner.cli.measured_profiles import model_on, profile_for, profile_path
from moai_planner.costmodel.breakdown import OperationTime
from moai_planner.costmodel.checks import layout_problems, precision_problems
from moai_planner.costmodel.comm import fast_domain
from moai_planner.costmodel.configuration import Configuration
from moai_planner.costmodel.measured import MeasuredSteps
from moai_planner.costmodel.memory import usable_bytes
from moai_planner.costmodel.operating_point import OperatingPoint, decode_step, operating_point, prompt_steps
from moai_planner.costmodel.serving import (
    breakdown,
    collectives_s,
    measured_steps_of,
    memory_budget,
    power_w,
    step_times,
)
from moai_planner.domain import units
from moai_planner.domain.accelerator import Accelerator
from moai_planner.domain.errors import InputError, Problem
from moai_planner.domain.layout import Engine, Layout
from moai_planner.domain.measured import StepShape
from moai_planner.domain.model import Model
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.precision import PRECISIONS, Precision
from moai_planner.domain.provenance import Basis
from moai_planner.domain.step import MemoryBudget

COMMAND = "estimate"
KV_FORMATS = ("auto", "bf16", "fp8")
ENGINES = ("vllm", "sglang", "trtllm", "atom", "moreh-vllm", "tt-metal")
GRAPH_PLATFORMS = ("cuda", "rocm")
"""Where profiles are taken with captured graphs, as served."""
DEFAULT_BATCH = 32
DEFAULT_DEVICES_PER_NODE = 8
DEFAULT_MODEL_LEN_TOKENS = 32768


@dataclass(frozen=True)
class Question:
    """The flags, as given."""

    model: str
    accelerator: str
    tp: int
    pp: int
    dp: int
    ep: int
    precision: str | None
    kv_dtype: str
    isl_tokens: int
    osl_tokens: int
    batch: int | None
    context_tokens: int | None
    engine: str
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int | None
    memory_utilization_frac: float
    nodes: int | None
    devices_per_node: int | None
    network: str | None
    confidence: float
    use_profile: bool = True


@dataclass(frozen=True)
class Answer:
    """The configuration and what it does; `refusal` says why it cannot be, then times are None."""

    question: Question
    configuration: Configuration
    memory: MemoryBudget
    batch: int
    context_tokens: float
    sequences_that_fit: int
    "Per data-parallel rank, of this request's full length."
    point: OperatingPoint | None
    basis: Basis
    low_frac: float
    high_frac: float
    "Of step times: their basis and 80 % interval."
    prefill: tuple[OperationTime, ...]
    decode: tuple[OperationTime, ...]
    power_w: float
    assumptions: tuple[str, ...]
    refusal: str


def answer(question: Question) -> Answer:
    """Check everything at once, then predict. InputError lists all problems."""
    problems = _number_problems(question)
    device = _found(problems, accelerator, question.accelerator, "--on")
    device_id = device.id if device else ""
    chosen_model = _found(
        problems, lambda name, *who: model_on(name, device_id, *who), question.model, "MODEL"
    )
    precision = _precision(question, chosen_model, problems)
    if precision and device:
        problems += precision_problems(precision, device.platform, COMMAND, "--precision")
    network_bytes_per_s = _network(question, device, problems)
    layout = Layout(question.tp, question.pp, question.dp, question.ep)
    if chosen_model and min(vars(layout).values()) >= 1:
        problems += layout_problems(chosen_model, layout, COMMAND)
        problems += _length_problems(question, chosen_model)
    per_node = _devices_per_node(question, device)
    problems += _device_problems(question, layout, per_node)
    if problems or device is None or chosen_model is None or precision is None:
        raise InputError(problems)
    return _predict(question, device, chosen_model, precision, layout, per_node, network_bytes_per_s)


def _predict(question, device, chosen_model, precision, layout, per_node, network_bytes_per_s) -> Answer:
    engine = Engine(
        name=question.engine,
        max_num_seqs=question.max_num_seqs,
        max_num_batched_tokens=question.max_num_batched_tokens,
        max_model_len=_model_len(question, chosen_model),
        memory_utilization_frac=question.memory_utilization_frac,
    )
    parameters = parameters_for(device, question.engine, precision)
    measured = ()
    if question.use_profile:
        measured = profile_for(device, engine.name, chosen_model, precision, layout)
    if isinstance(measured, tuple) and measured and device.platform not in GRAPH_PLATFORMS:
        engine = replace(engine, graphs=False)
    c = Configuration(
        device, chosen_model, precision, layout, engine, per_node, network_bytes_per_s, parameters, measured
    )
    memory = memory_budget(c)
    fitting = min(engine.max_num_seqs, memory.kv_tokens // (question.isl_tokens + question.osl_tokens))
    batch = question.batch or max(1, min(DEFAULT_BATCH, fitting))
    context = float(question.context_tokens or question.isl_tokens + question.osl_tokens / 2)
    refusal = _refusal(c, memory, batch, context)
    point, prefill, decode = None, (), ()
    sureness = parameters.basis, parameters.low_frac, parameters.high_frac
    beyond: tuple[str, ...] = ()
    if not refusal:
        times = step_times(c)
        steps = measured_steps_of(c)
        beyond = _beyond(steps, prompt_steps(engine, question.isl_tokens), decode_step(times, batch, context))
        sureness = times.basis, times.low_frac, times.high_frac
        point = operating_point(
            times,
            layout,
            engine,
            batch,
            question.isl_tokens,
            question.osl_tokens,
            context,
            question.confidence,
            steps,
        )
        first_chunk = min(question.isl_tokens, engine.max_num_batched_tokens)
        prefill = breakdown(c, "prefill", first_chunk, 0)
        decode = breakdown(c, "decode", math.ceil(batch / layout.pp), context)
    return Answer(
        question=question,
        configuration=c,
        memory=memory,
        batch=batch,
        context_tokens=context,
        sequences_that_fit=fitting,
        point=point,
        basis=sureness[0],
        low_frac=sureness[1],
        high_frac=sureness[2],
        prefill=prefill,
        decode=decode,
        power_w=power_w(c, 1.0),
        assumptions=(*beyond, *_assumptions(question, c)),
        refusal=refusal,
    )


def _refusal(c: Configuration, memory: MemoryBudget, batch: int, context: float) -> str:
    """Why this cannot run; empty when it can."""
    device = c.accelerator
    if not memory.fits:
        needed = memory.weights_bytes + memory.activations_bytes + memory.graphs_bytes + memory.runtime_bytes
        usable = usable_bytes(c, needed)
        return (
            f"{c.model.id} in {c.precision.id} does not fit on {c.layout.devices} {device.id}: one device "
            f"needs {units.show(needed, 'bytes')} before any KV and may use {units.show(usable, 'bytes')}; "
            f"raise --tp, --pp or --ep, or take a narrower --precision"
        )
    if batch > c.engine.max_num_seqs:
        return ""
    held = batch * context
    if held > memory.kv_tokens:
        return (
            f"{batch} sequences of {context:.0f} tokens do not fit: a rank holds {memory.kv_tokens} KV "
            "tokens; give a smaller --batch or --context, or more devices"
        )
    return ""


def _found(problems: list[Problem], read, reference: str, flag: str):
    try:
        return read(reference, COMMAND, flag)
    except InputError as error:
        problems.extend(error.problems)
        return None


def _number_problems(q: Question) -> list[Problem]:
    counts = {
        "--tp": q.tp,
        "--pp": q.pp,
        "--dp": q.dp,
        "--ep": q.ep,
        "--isl": q.isl_tokens,
        "--osl": q.osl_tokens,
        "--batch": q.batch,
        "--context": q.context_tokens,
        "--max-num-seqs": q.max_num_seqs,
        "--max-num-batched-tokens": q.max_num_batched_tokens,
        "--max-model-len": q.max_model_len,
        "--nodes": q.nodes,
        "--devices-per-node": q.devices_per_node,
    }
    problems = [
        Problem(COMMAND, flag, str(value), "give a whole number, 1 or more")
        for flag, value in counts.items()
        if value is not None and value < 1
    ]
    for flag, share in (
        ("--gpu-memory-utilization", q.memory_utilization_frac),
        ("--confidence", q.confidence),
    ):
        most = 1.0 if flag.startswith("--gpu") else 0.999
        if not 0 < share <= most:
            problems.append(Problem(COMMAND, flag, str(share), f"give a number above 0, at most {most:g}"))
    if q.engine not in ENGINES:
        problems.append(Problem(COMMAND, "--engine", f"unknown engine {q.engine!r}", near(q.engine, ENGINES)))
    if q.batch is not None and q.batch > q.max_num_seqs:
        remedy = f"at most --max-num-seqs, {q.max_num_seqs}, run together; raise it or lower --batch"
        problems.append(Problem(COMMAND, "--batch", str(q.batch), remedy))
    return problems


def _precision(q: Question, chosen_model: Model | None, problems: list[Problem]) -> Precision | None:
    if q.kv_dtype not in KV_FORMATS:
        problems.append(
            Problem(COMMAND, "--kv-dtype", f"unknown format {q.kv_dtype!r}", near(q.kv_dtype, KV_FORMATS))
        )
    wanted = q.precision or (chosen_model.native_precision if chosen_model else None)
    if wanted is None:
        return None
    if wanted not in PRECISIONS:
        problems.append(
            Problem(COMMAND, "--precision", f"unknown precision {wanted!r}", near(wanted, PRECISIONS))
        )
        return None
    found = PRECISIONS[wanted]
    return found if q.kv_dtype == "auto" else found.with_kv(q.kv_dtype)


def _network(q: Question, device: Accelerator | None, problems: list[Problem]) -> float:
    if q.network is not None:
        try:
            rate = units.parse(q.network, "bytes_per_s")
        except units.UnitError as error:
            problems.append(Problem(COMMAND, "--network", q.network, str(error)))
            return 0.0
        if rate <= 0:
            problems.append(Problem(COMMAND, "--network", q.network, "give a rate above zero"))
        return rate
    return device.scale_out_bytes_per_s * _devices_per_node(q, device) if device else 0.0


def _devices_per_node(q: Question, device: Accelerator | None) -> int:
    if q.devices_per_node is not None:
        return max(1, q.devices_per_node)
    return fast_domain(device, DEFAULT_DEVICES_PER_NODE) if device else DEFAULT_DEVICES_PER_NODE


def _length_problems(q: Question, chosen_model: Model) -> list[Problem]:
    longest = max(q.isl_tokens + q.osl_tokens, q.context_tokens or 0)
    window = min(q.max_model_len or chosen_model.max_context_tokens, chosen_model.max_context_tokens)
    problems = []
    if q.max_model_len and q.max_model_len > chosen_model.max_context_tokens:
        remedy = f"{chosen_model.id} takes at most {chosen_model.max_context_tokens} tokens"
        problems.append(Problem(COMMAND, "--max-model-len", str(q.max_model_len), remedy))
    if longest > window:
        remedy = f"a request of isl + osl (or --context) may have at most {window} tokens"
        problems.append(Problem(COMMAND, "--isl", str(longest), remedy))
    return problems


def _model_len(q: Question, chosen_model: Model) -> int:
    if q.max_model_len:
        return q.max_model_len
    longest = max(q.isl_tokens + q.osl_tokens, q.context_tokens or 0, DEFAULT_MODEL_LEN_TOKENS)
    return min(longest, chosen_model.max_context_tokens)


def _device_problems(q: Question, layout: Layout, per_node: int) -> list[Problem]:
    if min(vars(layout).values()) < 1 or q.nodes is None or q.nodes < 1:
        return []
    if layout.devices <= q.nodes * per_node:
        return []
    remedy = f"tp·pp·dp is {layout.devices} devices; {q.nodes} nodes have {q.nodes * per_node}"
    return [Problem(COMMAND, "--nodes", str(q.nodes), remedy)]


def _assumptions(q: Question, c: Configuration) -> tuple[str, ...]:
    found = [f"parameters: {c.parameters.note or c.parameters.basis.value}"]
    sizes = [f"sizes of {c.model.id}: those of {c.model.read_as}"] if c.model.read_as else []
    if isinstance(c.measured, OperatorTable):
        found = [
            f"step times: {source(c)} {c.measured.name} of {c.engine.name} {c.measured.engine_version} on "
            f"{c.accelerator.id}, {c.measured.timings} timings ({c.measured.source.title})",
            f"collectives: what is assumed of {c.accelerator.id}",
            f"shares of operations, and time outside the engine: {found[0]}",
        ]
    elif c.measured:
        path = profile_path(c.accelerator, c.engine.name, c.model, c.precision, c.layout)
        version = path.parent.name.partition("-")[2]
        found = [
            f"step times: {source(c)} {path.stem} of {c.engine.name} {version} on {c.accelerator.id}, "
            f"{len(c.measured)} steps",
            f"shares of operations, and time outside the engine: {found[0]}",
        ]
    if q.network is None and c.layout.devices > c.devices_per_node:
        rate = units.show(c.network_bytes_per_s, "bytes_per_s")
        found.append(f"network between nodes: {rate} a node, from the accelerator's profile")
    if q.devices_per_node is None:
        found.append(f"devices per node: {c.devices_per_node}")
    if c.accelerator.confidence == "low":
        found.append(f"{c.accelerator.id}: announced figures, not checked again")
    return (*sizes, *found)


def _beyond(steps: MeasuredSteps | None, prompt: list[StepShape], decode: StepShape) -> tuple[str, ...]:
    """What is asked past the steps that were measured, in words."""
    if steps is None:
        return ()
    last = {shape.phase: steps.beyond(shape) for shape in (*prompt, decode) if steps.has(shape.phase)}
    return tuple(
        f"beyond what was measured: {phase} {', '.join(why)}; the edge is held and the interval is wider"
        for phase, why in last.items()
        if why
    )


def source(c: Configuration) -> str:
    """Where the step times come from."""
    if not c.measured:
        return c.parameters.basis.value
    if isinstance(c.measured, OperatorTable):
        return "measured operators"
    if any(collectives_s(c, [point.shape for point in c.measured])):
        return "measured shard + modelled collectives"
    return "measured profile"


def asked(question: Question) -> dict[str, object]:
    """The question as plain values."""
    return {field.name: getattr(question, field.name) for field in fields(question)}

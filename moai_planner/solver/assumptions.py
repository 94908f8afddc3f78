"""What a plan takes for granted, said first."""

from __future__ import annotations

from collections.abc import Sequence

from moai_planner.domain.cluster import CapacityRequest
from moai_planner.domain.operators import OperatorTable
from moai_planner.domain.parameters import OWN_ROWS
from moai_planner.domain.provenance import Basis
from moai_planner.solver.candidates import Option
from moai_planner.solver.traffic import PREFIX_REUSE_FRAC


def assumptions(request: CapacityRequest, used: Sequence[Option]) -> tuple[str, ...]:
    """Sentences, each once, in the order of how much hangs on them."""
    found = [*_of_predictions(request, used), *_of_traffic(request, used), *request.assumptions]
    for pool in request.pools:
        if not any(text.startswith(f"pool {pool.name}: ") for text in request.assumptions):
            found += [f"pool {pool.name}: {field} was not given" for field in pool.assumed]
    return tuple(dict.fromkeys(found))


def _of_predictions(request: CapacityRequest, used: Sequence[Option]):
    for option in used:
        basis, note = option.configuration.parameters.basis, option.configuration.parameters.note
        if isinstance(option.configuration.measured, OperatorTable):
            yield f"step times of {option.pool.accelerator.name}: measured operators, summed over the layers"
        elif option.configuration.measured:
            yield f"step times of {option.pool.accelerator.name}: measured steps, interpolated between them"
        elif note.startswith(OWN_ROWS):
            yield f"step times of {option.pool.accelerator.name}: {note}"
        elif basis not in (Basis.MEASURED, Basis.CALIBRATED):
            yield (
                f"step times of {option.pool.accelerator.name} are {basis.value}"
                + (f" ({note})" if note else "")
                + ", not measured on it"
            )
        if option.pool.accelerator.confidence == "low":
            yield f"the data sheet of {option.pool.accelerator.name} is an announcement, or unchecked"
    if request.options.confidence is None:
        yield "step times are planned at their middle, without a margin for prediction error"
    else:
        level = f"{request.options.confidence:.0%}"
        yield f"step times are planned at the slow end of their {level} interval"


def _of_traffic(request: CapacityRequest, used: Sequence[Option]):
    yield "counts and lane weights stay the same over all windows; all lanes of a deployment get the same mix"
    surges = {o.candidate.deployment: o.traffic.surge for o in used}
    for name, surge in surges.items():
        yield f"{name}: planned for {surge:.2f} times its mean rate, the busy half minutes of its trace"
    for deployment in request.deployments:
        cells = [cell for window in deployment.workload.windows for cell in window.cells]
        if deployment.prefix_caching and any(cell.cached_frac for cell in cells):
            share = f"{PREFIX_REUSE_FRAC:.0%}"
            yield f"{deployment.name}: {share} of the trace's ideal prefix reuse is counted on"
    for name, too_long in sorted({(o.candidate.deployment, o.traffic.too_long) for o in used}):
        if too_long:
            yield f"{name}: {too_long} requests of the trace exceed the context window and are refused"

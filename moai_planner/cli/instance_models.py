"""Flags of `simulate --bench` → the system that is measured."""

from __future__ import annotations


def instance_model(
    model: str, on: str, tp: int, pp: int, dp: int, ep: int, precision: str | None, engine_settings: dict
):
    """One engine instance of a shipped model on a shipped accelerator. InputError lists what is wrong."""
    from moai_planner.catalog.accelerators import accelerator
    from moai_planner.catalog.parameters import parameters_for
    from moai_planner.cli.measured_profiles import model_on, profile_for
    from moai_planner.costmodel.checks import layout_problems, precision_problems
    from moai_planner.costmodel.configuration import Configuration
    from moai_planner.costmodel.serving import step_times
    from moai_planner.domain.errors import InputError, Problem
    from moai_planner.domain.layout import Engine, Layout
    from moai_planner.domain.precision import PRECISIONS
    from moai_planner.simulate.instance import instance_of

    device = accelerator(on)
    chosen = model_on(model, device.id)
    problems = []
    formats = precision or chosen.native_precision
    if formats not in PRECISIONS:
        problems.append(
            Problem("command line", "--precision", str(formats), "one of " + ", ".join(PRECISIONS))
        )
    else:
        problems += precision_problems(PRECISIONS[formats], device.platform, "command line", "--precision")
    layout = Layout(tp, pp, dp, ep)
    if min(tp, pp, dp, ep) < 1:
        problems.append(Problem("command line", "--tp --pp --dp --ep", str(layout), "degrees of 1 or more"))
    else:
        problems += layout_problems(chosen, layout, "simulate")
    if problems:
        raise InputError(problems)
    settings = {"max_model_len": min(chosen.max_context_tokens, 32768)} | engine_settings
    engine = Engine(**settings)
    kind = PRECISIONS[formats]
    configuration = Configuration(
        device, chosen, kind, layout, engine, 8, 8 * device.scale_out_bytes_per_s,
        parameters_for(device, engine.name, kind), profile_for(device, engine.name, chosen, kind, layout),
    )  # fmt: skip
    instance = instance_of(configuration, step_times(configuration))
    if not instance.memory.fits:
        raise InputError(
            Problem("command line", "--on --tp", f"{model} on {layout.devices} x {on}",
                    "the weights leave no memory for KV; use more devices or a smaller precision")
        )  # fmt: skip
    return instance

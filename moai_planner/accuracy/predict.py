"""Prepared runs → predicted metrics, in the names and units of the measurements table.

values = predict(prepared)         # metric → [run] predictions, NaN where the model makes none
"""

from __future__ import annotations

import numpy as np

from moai_planner.accuracy.draft import kept_tokens
from moai_planner.accuracy.pace import paces_of, power_of
from moai_planner.accuracy.prepare import Prepared
from moai_planner.accuracy.simulated import simulate_runs
from moai_planner.accuracy.steady import pack, solve_steady
from moai_planner.costmodel.serving import parameter_columns, stack, step_times_of, timed, work_of
from moai_planner.domain.parameters import Parameters
from moai_planner.domain.step import StepTimes
from moai_planner.domain.units import MILLI

OF_REQUESTS = ("tpot_ms", "e2el_s")
"""Times of requests that all run alike: hardly one in a hundred alone lifts their mean."""


class Predictor:
    """Holds the loads of the configurations, so that new parameters cost no second reading."""

    def __init__(self, prepared: Prepared):
        self.prepared = prepared
        self.work = stack([work_of(c) for c in prepared.configurations])
        # repeats of one configuration are solved once
        _, self._first, self._place = np.unique(prepared.records, return_index=True, return_inverse=True)

    def outcomes(self, parameters: list[Parameters] | None = None) -> np.ndarray:
        """Steady state of every run (`steady.OUT`) with one parameter set a configuration."""
        return self._outcomes(parameters)[0]

    def metrics(self) -> dict[str, np.ndarray]:
        """Every metric with the parameters that the configurations carry, transients and tails simulated."""
        out, times = self._outcomes(None)
        values = metrics_of(self.prepared, out)
        for i, found in simulate_runs(self.prepared, times).items():
            for name, value in found.items():
                values.setdefault(name, np.full(len(out), np.nan))[i] = value
        _order_tails(values)
        paces = paces_of(self.prepared)
        return {name: value * paces ** power_of(name) for name, value in values.items()}

    def _outcomes(self, parameters: list[Parameters] | None) -> tuple[np.ndarray, list[StepTimes]]:
        configurations = self.prepared.configurations
        columns = parameter_columns(parameters or [c.parameters for c in configurations])
        times = timed(configurations, step_times_of(configurations, self.work, columns))
        records = self.prepared.records[self._first].copy()
        _set_transfers(records, columns)
        accept_frac = columns.draft_accept_frac[records["decode"], 0]
        records["accepted_tokens"] = kept_tokens(records["draft_tokens"], accept_frac)
        records["warmup_s"] *= columns.warmup_s[records["prefill"], 0]
        return solve_steady(pack(times), records)[self._place], times


def _order_tails(values: dict[str, np.ndarray]) -> None:
    """Tails are simulated where the middle is a steady state: none lies below its median, and of one request
    none below the mean. A p90 lies between median and p99."""
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2el_s"):
        tail, median = values.get(f"{name}_p99"), values.get(f"{name}_median")
        if tail is not None and median is not None:
            least = np.fmax(median, values[f"{name}_mean"]) if name in OF_REQUESTS else median
            values[f"{name}_p99"] = np.where(tail < least, least, tail)
    if "ttft_ms_p90" in values:
        p90 = np.where(
            values["ttft_ms_p90"] < values["ttft_ms_median"], values["ttft_ms_median"], values["ttft_ms_p90"]
        )
        values["ttft_ms_p90"] = np.where(p90 > values["ttft_ms_p99"], values["ttft_ms_p99"], p90)


def _set_transfers(records: np.ndarray, p: Parameters) -> None:
    """Transfers at the rate that the slower side's parameters allow."""
    pre, dec = records["prefill"], records["decode"]
    staged = records["staged"] > 0

    def slower(name: str) -> np.ndarray:
        column = getattr(p, name)[:, 0]
        return np.minimum(column[pre], column[dec])

    records["transfer_token_s"] /= np.where(
        staged, slower("staged_bandwidth_frac"), slower("transfer_bandwidth_frac")
    )
    records["transfer_latency_s"] = np.maximum(p.transfer_s[pre, 0], p.transfer_s[dec, 0])
    records["decode_slowdown_frac"] = np.where(
        staged, p.staged_slowdown_frac[dec, 0], p.transfer_slowdown_frac[dec, 0]
    )


def predict(prepared: Prepared) -> dict[str, np.ndarray]:
    """Metrics of every run with the parameters its configurations carry."""
    if not prepared.runs:
        return {}
    return Predictor(prepared).metrics()


def metrics_of(prepared: Prepared, out: np.ndarray) -> dict[str, np.ndarray]:
    """Steady-state outcomes in the names and units of the table."""
    runs = prepared.runs
    events = np.array([run.events_per_token for run in runs])
    isl, osl = prepared.records["isl_tokens"], prepared.records["osl_tokens"]
    devices = np.array([run.devices for run in runs], dtype=float)
    chunk = np.maximum(out["kept_tokens"], [run.tokens_per_event for run in runs])
    tpot_ms = out["tpot_s"] / MILLI / events
    slower = out["tpot_median_s"] / out["tpot_s"]
    itl_p99_s = out["late_step_s"] + out["tpot_s"] * (chunk - out["kept_tokens"])
    last_s = np.maximum(out["last_s"], out["ttft_median_s"])
    decode_s = out["e2el_s"] - out["ttft_s"]
    output_tps = out["req_per_s"] * osl
    total_tps = out["req_per_s"] * (isl + osl)
    values = {
        "ttft_ms_mean": out["ttft_s"] / MILLI,
        "ttft_ms_median": out["ttft_median_s"] / MILLI,
        "ttft_ms_p99": last_s / MILLI,
        "tpot_ms_mean": tpot_ms,
        "tpot_ms_median": tpot_ms * slower,
        "itl_ms_mean": tpot_ms * chunk,
        "itl_ms_p99": itl_p99_s / MILLI,
        "e2el_s_mean": out["e2el_s"],
        "e2el_s_median": decode_s * slower + out["ttft_median_s"],
        "output_tps": output_tps,
        "total_tps": total_tps,
        "output_tps_per_accel": output_tps / devices,
        "total_tps_per_accel": total_tps / devices,
    }
    return {name: np.where(np.isfinite(value), value, np.nan) for name, value in values.items()}

"""Anchors from operator timings: readable, possible, and what the assumed parameters say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from moai_planner.catalog.accelerators import accelerator
from moai_planner.catalog.parameters import assumed_for
from moai_planner.domain.parameters import BOUNDS, out_of_bounds
from moai_planner.domain.precision import precision

FILE = Path(__file__).resolve().parents[2] / "hardware_profiles" / "parameters" / "anchors.yaml"
ANCHORS = yaml.safe_load(FILE.read_text(encoding="utf-8"))["anchors"]


@pytest.mark.parametrize(
    "anchor", ANCHORS, ids=lambda a: f"{a['device']} {a['number_format']} {a['operator']}"
)
def test_assumed_parameters_rest_on_their_anchor(anchor):
    """Within three spreads, or a tenth where the fit is very sure (the shipped figures are rounded)."""
    device = accelerator(anchor["device"])
    assert (device.architecture, device.platform) == (anchor["architecture"], anchor["platform"])
    assumed = assumed_for(device, "vllm", precision(anchor["number_format"]))
    assert not out_of_bounds({name: value for name, (value, _) in anchor["values"].items()})
    for name, (value, spread) in anchor["values"].items():
        bounds = BOUNDS[name]
        apart = abs(bounds.to_real(getattr(assumed, name)) - bounds.to_real(value))
        near = getattr(assumed, name) == pytest.approx(value, rel=0.1)
        assert near or apart < 3 * spread, (name, getattr(assumed, name), value)

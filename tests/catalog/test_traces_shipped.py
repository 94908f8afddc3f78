"""Shipped traces: counts and means as published, exact block ids, the same bytes when written again."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from moai_planner.catalog.paths import data_root
from moai_planner.catalog.trace_formats import clients_file, shipped
from moai_planner.catalog.trace_formats.requests import Source
from moai_planner.catalog.traces import trace, trace_facts, trace_names
from moai_planner.catalog.workload import cached_prefix_tokens
from moai_planner.domain.errors import InputError

# name, requests, mean prompt, mean output, minutes: as the publishers state them
PUBLISHED = (
    ("azure_2023_code", 8819, 2048, 28, 57),
    ("azure_2023_conv", 19366, 1155, 211, 58),
    ("mooncake_conversation", 12031, 12035, 343, 59),
    ("mooncake_synthetic", 3993, 15326, 149, 17),
)


@pytest.mark.parametrize(("name", "requests", "isl", "osl", "minutes"), PUBLISHED)
def test_requests_and_means_are_the_published_ones(name, requests, isl, osl, minutes):
    found = trace(name)
    assert len(found) == requests == trace_facts(name)["requests"]
    assert found.isl_tokens.mean() == pytest.approx(isl, abs=1)
    assert found.osl_tokens.mean() == pytest.approx(osl, abs=1)
    assert found.duration_s / 60 == pytest.approx(minutes, abs=0.8)
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("name", "reused_frac"), [("mooncake_conversation", 0.37), ("mooncake_synthetic", 0.65)]
)
def test_ideal_prefix_reuse_is_the_published_one(name, reused_frac):
    found = trace(name)
    assert cached_prefix_tokens(found).sum() / found.isl_tokens.sum() == pytest.approx(reused_frac, abs=0.005)


@pytest.mark.parametrize("name", trace_names())
def test_a_trace_is_sorted_positive_and_attributed(name):
    """Law: what ships needs no repair, and says whose it is."""
    found, facts = trace(name), trace_facts(name)
    assert (np.diff(found.arrival_s) >= 0).all() and found.arrival_s[0] >= 0
    assert found.arrival_s[-1] < found.duration_s
    assert found.isl_tokens.min() >= 1 and found.osl_tokens.min() >= 1
    assert found.name == name and found.source == facts["attribution"]
    assert all(
        facts[key] for key in ("title", "source", "licence", "url", "date", "requests", "format", "notes")
    )
    notice = (data_root() / "NOTICE").read_text() if (data_root() / "NOTICE").is_file() else name
    assert name in notice


@pytest.mark.parametrize("name", [row[0] for row in PUBLISHED])
def test_writing_a_trace_again_gives_its_bytes(name):
    """Law: one trace, one file; and the file carries the trace exactly."""
    stored = (data_root() / "workload_traces" / f"{name}.csv.gz").read_bytes()
    assert shipped.write(trace(name)) == stored


def test_writing_clients_again_gives_their_bytes():
    stored = (data_root() / "workload_traces" / "servegen_deepseek_r1.jsonl.gz").read_bytes()
    source = Source("servegen", "servegen", gzip.decompress(stored))
    again = clients_file.write(clients_file.read_clients(source, clients_file.parse_client))
    assert again == stored


def test_the_shipped_sample_has_the_stated_count_and_a_seed_changes_it():
    same, other = trace("servegen_deepseek_r1"), trace("servegen_deepseek_r1", seed=1)
    assert len(same) == trace_facts("servegen_deepseek_r1")["requests"]
    assert np.array_equal(same.arrival_s, trace("servegen_deepseek_r1", seed=0).arrival_s)
    assert len(other) != len(same)


def test_shipped_files_are_small():
    """The repository stays light: everything together below half a megabyte."""
    sizes = [path.stat().st_size for path in (data_root() / "workload_traces").iterdir()]
    assert sum(sizes) < 500_000


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(InputError, match="did you mean mooncake_synthetic"):
        trace("mooncake_syntetic")

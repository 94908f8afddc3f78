"""The measuring loop with a stand-in engine: what is visited, what a kill costs, what happens at the edge."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from moai_planner.domain.errors import InputError
from moai_planner.domain.measured import Shard
from moai_planner.profile import engine, run, shard, sweep
from moai_planner.profile.journal import open_journal
from moai_planner.profile.small_models import SMALL_MODELS

LIMITS = sweep.Limits(128, 4, 128, 1 << 30, False)
SETTINGS = engine.EngineSettings(Path("."), "cpu", 512, 4, 132)


class StandIn:
    """Schedules as the real engine does, in no time, with a time made from the batch."""

    kv_tokens = 1 << 20

    def __init__(self, fail_after=None, memory_tokens=1 << 30):
        self.requests, self.steps, self.fail_after, self.memory_tokens = [], 0, fail_after, memory_tokens

    def add(self, prompt_tokens, new_tokens, declared_tokens=0):
        self.requests.append([prompt_tokens, new_tokens, declared_tokens])

    def step(self):
        self.steps += 1
        if self.fail_after is not None and self.steps > self.fail_after:
            raise KeyboardInterrupt
        record = engine.StepRecord()
        for request in self.requests:
            prompt, _, done = request
            new = max(1, prompt - done)
            record.scheduled.append((new, done))
            request[1] -= 1
            request[2] = done + new
        self.requests = [r for r in self.requests if r[1] > 0]
        tokens = sum(n for n, _ in record.scheduled)
        if tokens > self.memory_tokens:
            raise engine.OutOfMemory
        record.wall_s = record.cpu_s = 0.001 * tokens
        record.model_wall_s = record.model_cpu_s = 0.0009 * tokens
        return record

    def drain(self):
        self.requests = []

    def stop(self):
        pass


def _task(budget_s=0.0, stand_in=None):
    runner = SimpleNamespace(start=lambda settings: stand_in, run_shape=engine.run_shape)
    return run.Task(Shard(), SETTINGS, LIMITS, "cpu", budget_s, 0, runner)


def _measure(path, stand_in, budget_s=0.0):
    journal = open_journal(path, {"a": 1})
    run.measure(_task(budget_s, stand_in), journal, lambda left, note: None)
    return journal


def test_every_coarse_point_is_visited_even_without_budget(tmp_path):
    """Law: the coarse grid is complete whatever the budget, each point the minimum of visits."""
    journal = _measure(tmp_path / "j", StandIn())
    visits = {shape: len(v) for (_, shape), v in journal.visits.items()}
    assert visits == dict.fromkeys(sweep.coarse_grid(LIMITS), sweep.MIN_VISITS)


@pytest.mark.parametrize("steps", [1, 40, 150])
def test_a_kill_costs_one_visit(tmp_path, steps):
    """Law: after a kill and a second run the table is that of an uninterrupted one."""
    with pytest.raises(KeyboardInterrupt):
        _measure(tmp_path / "killed", StandIn(fail_after=steps))
    resumed = run.points(_measure(tmp_path / "killed", StandIn()), Shard())
    whole = run.points(_measure(tmp_path / "whole", StandIn()), Shard())
    assert resumed == whole


def test_out_of_memory_is_an_edge_and_not_the_end(tmp_path):
    """A shape that does not fit is recorded once and skipped; the others are measured."""
    stand_in = StandIn(memory_tokens=127)
    stand_in.kv_tokens = 1 << 20
    journal = open_journal(tmp_path / "j", {})
    grid = sweep.coarse_grid(LIMITS)
    deadline = run._Deadline(0.0, 0.0)
    run._coarse(stand_in, _task(), journal, grid, deadline, lambda left, note: None)
    edges = {shape for _, shape in journal.edges}
    assert edges == {shape for shape in grid if shape.step_tokens > 127}
    assert set(run.points(journal, Shard())) == set(grid) - edges
    assert set(journal.edges.values()) == {"out of memory"}


def test_shapes_past_the_kv_cache_are_edges(tmp_path):
    """What the engine's own KV cache cannot hold is an edge, said in its words."""
    stand_in = StandIn()
    stand_in.kv_tokens = 300
    journal = _measure(tmp_path / "j", stand_in)
    assert journal.edges and all("300 tokens" in reason for reason in journal.edges.values())


def test_another_batch_than_asked_for_is_refused():
    """Law: a step whose scheduler output is not the asked shape is never recorded."""
    stand_in = StandIn()
    stand_in.add(7, 3, 6)
    with pytest.raises(engine.ShapeMismatch, match=r"another batch: 1 after 6"):
        engine.run_shape(stand_in, sweep.StepShape("prefill", 64, 0, 0), 1)


def test_decode_context_is_centred_on_the_shape():
    """The mean context over the steps of a visit is the shape's."""
    seen = []

    class Watching(StandIn):
        def step(self):
            record = super().step()
            seen.append(record.scheduled[0][1])
            return record

    engine.run_shape(Watching(), sweep.StepShape("decode", 0, 2, 100), 6)
    assert abs(sum(seen[1:]) / len(seen[1:]) - 100) <= 1


def test_refining_and_repeating_use_the_budget(tmp_path):
    """With budget left, noisy points are visited again until the deadline."""
    journal = _measure(tmp_path / "j", StandIn(), budget_s=0.5)
    assert journal.spent_s < 5


def test_shards_divide_as_vllm_divides():
    """Heads, widths and vocabulary by tp, experts by ep; impossible degrees are refused, all at once."""
    moe = shard.divide(SMALL_MODELS["tiny-moe"], Shard(1, 4))
    assert (moe["num_experts"], moe["num_experts_per_tok"], moe["moe_intermediate_size"]) == (4, 4, 256)
    mla = shard.divide(SMALL_MODELS["tiny-mla"], Shard(2))
    assert (mla["num_attention_heads"], mla["num_key_value_heads"], mla["kv_lora_rank"]) == (4, 4, 512)
    dense = shard.divide(SMALL_MODELS["dense-100m"], Shard(4))
    assert (dense["num_key_value_heads"], dense["vocab_size"], dense["head_dim"]) == (1, 4096, 64)
    with pytest.raises(InputError) as caught:
        shard.divide(SMALL_MODELS["dense-100m"], Shard(5))
    assert {p.field for p in caught.value.problems} == {"num_attention_heads", "intermediate_size"}
    with pytest.raises(InputError, match="no experts"):
        shard.divide(SMALL_MODELS["dense-100m"], Shard(1, 2))

"""The journal survives kills and refuses what is not its own."""

import pytest

from moai_planner.domain.errors import InputError
from moai_planner.domain.measured import Shard, StepShape
from moai_planner.profile.journal import Visit, open_journal

KEY = {"model": "tiny", "seed": 0}
SHAPE = StepShape("decode", 0, 8, 512)


def _filled(path):
    journal = open_journal(path, KEY)
    for i in range(3):
        journal.add_visit(Shard(), SHAPE, Visit(0.01 + i, 0.01, 0.001), 0.1)
    journal.add_edge(Shard(2), SHAPE, "out of memory", 0.2)
    journal.add_ceilings({"copy_bytes_per_s": 1.0}, 0.3)
    return journal


def test_reopened_journal_knows_everything(tmp_path):
    """Law: what was added is there after a restart, time spent included."""
    before = _filled(tmp_path / "j.jsonl")
    after = open_journal(tmp_path / "j.jsonl", KEY)
    assert (dict(after.visits), after.edges, after.ceilings) == (
        dict(before.visits),
        before.edges,
        before.ceilings,
    )
    assert after.spent_s == pytest.approx(0.8) and after.resumed == 5


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_kill_at_any_byte_loses_at_most_the_last_line(tmp_path, cut):
    """Law: a file cut anywhere in its last line opens with all lines before it, and can be continued."""
    path = tmp_path / "j.jsonl"
    _filled(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    journal = open_journal(path, KEY)
    assert len(journal.visits[Shard(), SHAPE]) == 3
    journal.add_visit(Shard(), SHAPE, Visit(0.02, 0.02, 0.0), 0.1)
    assert len(open_journal(path, KEY).visits[Shard(), SHAPE]) == 4


def test_another_run_is_refused_with_every_difference(tmp_path):
    """A journal of other settings is not continued."""
    _filled(tmp_path / "j.jsonl")
    with pytest.raises(InputError) as caught:
        open_journal(tmp_path / "j.jsonl", {"model": "other", "seed": 1})
    assert [problem.field for problem in caught.value.problems] == ["key.model", "key.seed"]


@pytest.mark.parametrize(
    "line",
    ['{"shard": [1, 1]}', "nonsense", '{"shard":[1,1],"shape":["warp",1,1,1],"edge":"x","spent_s":0}', "[]"],
)
def test_damage_in_the_middle_is_named_by_line(tmp_path, line):
    """A broken line that is not the last is refused with its number."""
    path = tmp_path / "j.jsonl"
    _filled(path)
    lines = path.read_text().splitlines()
    lines[2] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        open_journal(path, KEY)
    assert caught.value.problems[0].field == "line 3"


def test_a_foreign_file_is_refused(tmp_path):
    """A file that is no journal is left alone."""
    (tmp_path / "j.jsonl").write_text("hello\n")
    with pytest.raises(InputError, match="not a profile journal"):
        open_journal(tmp_path / "j.jsonl", KEY)

"""Every format reads its own, says what is wrong with a line, and drops nothing without a count."""

from __future__ import annotations

import gzip
import json

import pytest

from moai_planner.catalog.traces import trace, trace_files
from moai_planner.domain.errors import InputError

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,Conversation log\n"
    "118,ChatGPT,417,0,417,API log\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [0, 1]}\n'
    '{"timestamp": 500, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 2]}\n'
)
BAILIAN = (
    '{"chat_id": 7, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 20, "output_length": 9, '
    '"type": "text", "turn": 1, "hash_ids": [91, 92]}\n'
    '{"chat_id": 8, "parent_chat_id": 7, "timestamp": 3.0, "input_length": 40, "output_length": 9, '
    '"type": "text", "turn": 2, "hash_ids": [91, 92, 93]}\n'
)
BENCH = json.dumps(
    {
        "endpoint_type": "vllm",
        "duration": 4.0,
        "input_lens": [8, 9, 10],
        "output_lens": [3, 0, 5],
        "start_times": [100.0, 100.5, 101.0],
    }
)
PLAIN = "arrival_s,isl,osl,session\n0.5,10,3,a\n1.5,20,4,b\n2.5,30,5,a\n"
CLIENTS = (
    '{"client_id":0,"windows":[[0.0,2.0,1.0,"Gamma",1.0,0.5],[600.0,0.0,0.0,"",0.0,0.0]],'
    '"dataset_by_window":{"0":{"input_tokens":"{10: 0.5, 30: 0.5}","output_tokens":"{5: 1.0}"}}}\n'
)


def read(tmp_path, text: str | bytes, name: str = "some.csv", description: str = ""):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if description:
        (tmp_path / f"{name}.yaml").write_text(description)
    return trace(str(path))


@pytest.mark.parametrize(
    ("text", "arrival_s", "isl", "osl", "duration_s"),
    [
        (AZURE, [0, 0.052], [4808, 3180], [10, 8], 0.104),
        (BURST, [0, 40], [472, 1087], [18, 230], 113 * 3 / 2),
        (MOONCAKE, [0, 0.5], [1000, 1100], [5, 6], 1.0),
        (BAILIAN, [0, 1.5], [20, 40], [9, 9], 3.0),
        (BENCH, [0, 1.0], [8, 10], [3, 5], 1.5),
        (PLAIN, [0, 1, 2], [10, 20, 30], [3, 4, 5], 3.0),
    ],
    ids=["azure", "burstgpt", "mooncake", "bailian", "bench", "plain"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_each_format_is_found_out_from_its_content(tmp_path, text, arrival_s, isl, osl, duration_s, packed):
    found = read(tmp_path, gzip.compress(text.encode()) if packed else text, "log.data")
    assert found.arrival_s == pytest.approx(arrival_s)
    assert found.isl_tokens.tolist() == isl
    assert found.osl_tokens.tolist() == osl
    assert found.duration_s == pytest.approx(duration_s)
    assert found.name == "log"


def test_blocks_and_conversations_are_carried(tmp_path):
    mooncake, bailian, plain = (read(tmp_path, text) for text in (MOONCAKE, BAILIAN, PLAIN))
    assert mooncake.block_tokens == 512 and mooncake.block_hashes.tolist() == [0, 1, 0, 1, 2]
    assert bailian.block_tokens == 16 and bailian.block_offsets.tolist() == [0, 2, 5]
    assert bailian.session_ids.tolist() == [0, 0]
    assert plain.session_ids.tolist() == [0, 1, 0]


def test_a_description_beside_the_file_settles_columns_and_time(tmp_path):
    text = "when,p,a\n0,10,2\n60000,20,3\n"
    description = (
        "columns: {arrival: when, isl: p, osl: a}\ntime_unit: 1 ms\nduration: 2 min\nformat: plain-csv\n"
    )
    found = read(tmp_path, text, "mine.csv", description + "name: monday\n")
    assert found.arrival_s.tolist() == [0, 60] and found.duration_s == 120 and found.name == "monday"


def test_a_description_can_be_given_itself(tmp_path):
    (tmp_path / "log.csv").write_text(PLAIN)
    (tmp_path / "monday.yaml").write_text("data: log.csv\nname: monday\n")
    assert len(trace(str(tmp_path / "monday.yaml"))) == 3
    assert trace_files(str(tmp_path / "monday.yaml")) == (tmp_path / "monday.yaml", tmp_path / "log.csv")
    assert trace_files(str(tmp_path / "log.csv")) == (tmp_path / "log.csv",)


def test_what_is_empty_or_late_is_counted(tmp_path):
    """Law: read + left out = lines of the file; late arrivals are kept and sorted."""
    found = read(tmp_path, "timestamp,input_tokens,output_tokens\n3,5,1\n1,6,2\n2,0,3\n4,7,0\n0,8,4\n\n")
    counts = dict(found.left_out)
    assert found.isl_tokens.tolist() == [8, 6, 5]
    assert counts["prompt of zero tokens"] == 1 and counts["output of zero tokens"] == 1
    assert counts["arrival before the line above: kept, sorted"] == 2
    assert found.duration_s == pytest.approx(4 * 5 / 4)


WRONG = (
    ("cut off number", "arrival_s,isl,osl\n0,1,1\n1,x,1\n2,3,4\n", ["line 3", "isl", "number"]),
    ("too few fields", "arrival_s,isl,osl\n0,1,1\n1,2\n", ["line 3", "3 fields"]),
    ("too many fields", "arrival_s,isl,osl\n0,1,1\n1,2,3,4\n", ["line 3", "3 fields"]),
    ("too many fields at once", "arrival_s,isl,osl\n0,1,1,9\n1,2,3,4\n", ["line 2", "line 3"]),
    ("empty cell", "arrival_s,isl,osl\n0,1,1\n\n1,,3\n", ["line 4", "empty"]),
    ("NaN", "arrival_s,isl,osl\n0,nan,1\n", ["line 2", "nan"]),
    ("infinite", "arrival_s,isl,osl\ninf,1,1\n1,2,2\n", ["line 2", "inf"]),
    ("negative length", "arrival_s,isl,osl\n0,1,1\n1,-5,1\n", ["line 3", "-5"]),
    ("negative time", "arrival_s,isl,osl\n-1,1,1\n1,5,1\n", ["line 2", "-1"]),
    ("fraction", "arrival_s,isl,osl\n0,1.5,1\n1,5,1\n", ["line 2", "1.5"]),
    ("absurd length", "arrival_s,isl,osl\n0,1,1\n1,99999999999999,1\n", ["line 3"]),
    ("bad date", AZURE + "yesterday,5,5\n", ["line 4", "yesterday"]),
    ("bad count among dates", AZURE + "2023-11-16 18:17:05,-5,5\n", ["line 4", "-5"]),
    ("missing column", "arrival_s,isl\n0,5\n", ["header", "osl"]),
    ("header only", "arrival_s,isl,osl\n", ["no requests"]),
    ("all empty", "arrival_s,isl,osl\n0,0,1\n1,1,0\n", ["every request is empty"]),
    ("nothing", "", ["empty file"]),
    ("blank", " \n\n", ["empty file"]),
    ("prose", "Dear planner,\nthese are the requests\n", ["line 1", "no known trace format"]),
    ("binary", bytes(range(256)) * 9, ["no known trace format"]),
    ("all at once", "arrival_s,isl,osl\n5,1,1\n5,2,2\n", ["duration"]),
    ("one request", "arrival_s,isl,osl\n5,1,1\n", ["duration"]),
    ("json cut", MOONCAKE + '{"timestamp": 9, "inpu', ["line 3"]),
    ("json list", MOONCAKE + "[1, 2]\n", ["line 3", "object"]),
    ("json two a line", MOONCAKE + '{"timestamp": 9}, {"timestamp": 9}\n', ["line 3"]),
    ("json key", MOONCAKE + '{"timestamp": 9, "input_length": 4}\n', ["line 3, output_length", "missing"]),
    ("json text", MOONCAKE.replace("500", '"500"'), ["line 2, timestamp"]),
    ("json NaN", MOONCAKE.replace("1100", "NaN"), ["line 2", "nan"]),
    ("json huge", MOONCAKE.replace("1100", "9" * 400), ["line 2"]),
    ("json deep", MOONCAKE + "[" * 9999 + "\n", ["line 3"]),
    ("hash ids", MOONCAKE.replace("[0, 1, 2]", "5"), ["line 2, hash_ids"]),
    ("hash id kinds", MOONCAKE.replace("[0, 1, 2]", "[0, null]"), ["line 2, hash_ids"]),
    ("hash ids absent", MOONCAKE.replace(', "hash_ids": [0, 1, 2]', ""), ["line 2, hash_ids", "missing"]),
    ("bench summary", '{"endpoint_type": "vllm", "duration": 3}', ["start_times", "--save-detailed"]),
    ("bench lists", BENCH.replace("[8, 9, 10]", "[8, 9]"), ["unequal", "input_lens 2"]),
    ("bench value", BENCH.replace("[8, 9, 10]", "[8, null, 10]"), ["input_lens[1]"]),
    ("bench cut", BENCH[:60], ["line 1"]),
    ("client rate", CLIENTS.replace("[0.0,2.0,", "[0.0,-2.0,"), ["line 1", "rate"]),
    ("client shape", CLIENTS.replace('"Gamma",1.0', '"Gamma",0.0'), ["line 1", "shape"]),
    ("client law", CLIENTS.replace("Gamma", "Pareto"), ["line 1", "pareto"]),
    ("client histogram", CLIENTS.replace("30: 0.5", "30: x"), ["line 1"]),
    ("client shares", CLIENTS.replace("30: 0.5", "30: -0.9"), ["line 1", "counts"]),
    ("client idle", CLIENTS.replace("[0.0,2.0,", "[0.0,0.0,"), ["no client sends"]),
    ("client keys", '{"client_id":0,"windows":[]}\n', ["dataset_by_window"]),
    ("back too far", "gap_us,isl,osl,back,shared\n0,600,5,1,1\n9,600,5,0,0\n", ["line 2"]),
    ("shared too long", "gap_us,isl,osl,back,shared\n0,600,5,0,0\n9,600,5,1,3\n", ["line 3"]),
    ("absurd blocks", "gap_us,isl,osl,back,shared\n0,600,5,0,0\n9,60099999999999,5,1,1\n", ["line 3"]),
    ("half a link", "gap_us,isl,osl,back,shared\n0,600,5,0,0\n9,600,5,0.5,0\n", ["line 3"]),
    ("absurd rate", CLIENTS.replace("[0.0,2.0,", "[0.0,1e12,"), ["requests expected"]),
    ("absurd time", "arrival_s,isl,osl\n0,1,1\n1e300,2,2\n", ["line 3"]),
    ("carriage return", "arrival_s,isl,osl\n0,1,1\n1,\r2,2\n", ["line 3"]),
    ("broken gzip", gzip.compress(b"arrival_s,isl,osl\n0,1,1\n" * 99)[:40], ["whole"]),
)


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, expected):
    """Law: bad input raises InputError, never anything else, and names the place."""
    with pytest.raises(InputError) as raised:
        read(tmp_path, text)
    message = str(raised.value)
    for word in expected:
        assert word in message


WRONG_DESCRIPTION = (
    ("formatt: plain-csv", "did you mean"),
    ("format: csv", "one of moai-requests"),
    ("duration: 60", "duration"),
    ("duration: 1 s", "the requests span 2 s"),
    ("duration: -3 s", "duration"),
    ("block_tokens: many", "block_tokens"),
    ("columns: {arrival: when}", "the columns are arrival_s, isl, osl, session"),
    ("columns: {arrivals: when}", "did you mean arrival?"),
    ("columns: [a]", "columns"),
    ("sample: {seed: -1}", "sample.seed"),
    ("- a list", "top level"),
    ("a: [", "is not YAML"),
    ("format: mooncake-jsonl", "line 1"),
    ("format: azure-csv", "TIMESTAMP"),
    ("format: vllm-bench", "line 1"),
)


@pytest.mark.parametrize(("description", "expected"), WRONG_DESCRIPTION)
def test_a_wrong_description_is_refused(tmp_path, description, expected):
    with pytest.raises(InputError) as raised:
        read(tmp_path, PLAIN, description=description)
    assert expected in str(raised.value)


def test_twenty_problems_are_shown_and_the_rest_counted(tmp_path):
    text = "arrival_s,isl,osl\n" + "".join(f"{i},x,1\n" for i in range(50))
    with pytest.raises(InputError) as raised:
        read(tmp_path, text)
    assert len(raised.value.problems) == 21
    assert "30 more" in str(raised.value)


def test_a_directory_or_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="directory"):
        trace(str(tmp_path))
    for odd in ("x" * 999, "a\0b", "~nobody-here/x", ""):
        with pytest.raises(InputError, match="shipped name"):
            trace(odd)
    with pytest.raises(InputError, match=r"capacity\.yaml: deployments\[0\]\.trace"):
        trace(str(tmp_path / "no.csv"), file="capacity.yaml", field="deployments[0].trace")

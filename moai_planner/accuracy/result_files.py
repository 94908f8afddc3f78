"""Result files of benchmark tools → runs: `vllm bench serve`, guidellm, aiperf, inference-perf, and the
llm-d benchmark report around any of them.

They say what was measured, seldom on what it ran; `Setup` carries that. The measurements table goes through
too, so `read_any` takes whatever a user has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moai_planner.accuracy.benchmark_report import Boards, read_report, recognises_report
from moai_planner.accuracy.measurements import read_measurements
from moai_planner.accuracy.result_tools import (
    read_aiperf,
    read_guidellm,
    read_inference_perf,
    read_vllm,
    recognises_aiperf,
    recognises_guidellm,
    recognises_inference_perf,
    recognises_vllm,
)
from moai_planner.accuracy.result_values import Result, Setup, run_of
from moai_planner.accuracy.run import Measurements, Run, Unsupported
from moai_planner.accuracy.text_file import read_text
from moai_planner.domain.errors import InputError, Problem

__all__ = ["Setup", "is_table", "read_any"]

READERS = (
    ("vllm bench serve", recognises_vllm, read_vllm),
    ("guidellm", recognises_guidellm, read_guidellm),
    ("aiperf", recognises_aiperf, read_aiperf),
    ("inference-perf", recognises_inference_perf, read_inference_perf),
)
"""Tried in this order, after the llm-d benchmark report."""
TOO_DEEP = ("nested too deeply", "give a result file")
SHOWN = 80
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def is_table(path: Path) -> bool:
    """Whether a file is a measurements table, by its name."""
    return path.name.lower().endswith(TABLES)


def read_any(path: Path, setup: Setup, boards: Boards = lambda board: "") -> Measurements:
    """A measurements table by its suffix, else the result file of a tool."""
    if is_table(path):
        return read_measurements(path)
    problems: list[Problem] = []
    results: list[tuple[str, Result]] = []
    for number, document in enumerate(_documents(path)):
        try:
            found = _results(document, number, path, boards)
        except InputError as error:
            problems += error.problems
            continue
        for index, result in enumerate(found):
            name = f"{path.stem}-{number}" if len(found) == 1 else f"{path.stem}-{number}.{index}"
            results.append((name, result))
            problems += [
                Problem(str(path), f"document {number + 1}, {field}", value, remedy)
                for field, value, remedy in result.faults
            ]
    problems += _unsaid([result for _, result in results if not result.reason], setup, str(path))
    if problems:
        raise InputError(problems)
    outcomes = [run_of(result, run_id, setup) for run_id, result in results]
    if not outcomes:
        raise InputError(Problem(str(path), "", "no results", "give a file with at least one benchmark"))
    return Measurements(
        tuple(one for one in outcomes if isinstance(one, Run)),
        tuple(one for one in outcomes if isinstance(one, Unsupported)),
    )


def _results(document: Mapping[str, Any], number: int, path: Path, boards: Boards) -> list[Result]:
    try:
        if recognises_report(document):
            return list(read_report(document, boards))
        for _, recognises, read in READERS:
            if recognises(document):
                return list(read(document))
    except RecursionError as error:
        raise InputError(Problem(str(path), f"document {number + 1}", *TOO_DEEP)) from error
    known = ", ".join((*(name for name, _, _ in READERS), "the llm-d benchmark report"))
    remedy = f"give a measurements table (.csv) or a result of {known}"
    raise InputError(Problem(str(path), f"document {number + 1}", "unknown format", remedy))


def _unsaid(results: list[Result], setup: Setup, file: str) -> list[Problem]:
    """What neither file nor flags say. One problem each, however many results lack it."""
    problems = []
    if not setup.accelerator and not all(result.workers for result in results):
        remedy = "say what it ran on: --on h100_sxm (with --tp, --dp, --ep, --replicas)"
        problems.append(Problem(file, "accelerator", "", remedy))
    if not setup.model and not all(result.model for result in results):
        problems.append(Problem(file, "model", "", "say which model was served: --model"))
    return problems


def _documents(path: Path) -> list[Mapping[str, Any]]:
    text = read_text(path, "a JSON result file")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        found = _yaml(text, path) if path.suffix in (".yaml", ".yml") else _lines(text, path, error)
    except RecursionError as error:
        raise InputError(Problem(str(path), "", *TOO_DEEP)) from error
    except ValueError as error:
        raise InputError(Problem(str(path), "", str(error)[:SHOWN], "write valid JSON")) from error
    documents = found if isinstance(found, list) else [found]
    if not documents or not all(isinstance(one, Mapping) for one in documents):
        raise InputError(Problem(str(path), "", "", "give a JSON object, a list of them, or one a line"))
    return documents


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return [one for one in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if one]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(Problem(str(path), "", " ".join(str(error).split()), "write valid YAML")) from error


def _lines(text: str, path: Path, whole: json.JSONDecodeError) -> list[Any]:
    """One document a line; a file that is none says where it stops being JSON."""
    documents = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            documents.append(json.loads(line))
        except json.JSONDecodeError as error:
            at, reason = (number, error.msg) if documents else (whole.lineno, whole.msg)
            raise InputError(Problem(str(path), f"line {at}", reason, "write valid JSON")) from error
        except (ValueError, RecursionError) as error:
            remedy = "write valid JSON"
            raise InputError(Problem(str(path), f"line {number}", str(error)[:SHOWN], remedy)) from error
    return documents

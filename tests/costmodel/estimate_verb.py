"""`moai-plan estimate` as the shell would run it, in this process."""

from __future__ import annotations

import pytest

from moai_planner.cli import main as command


def estimate(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["moai-plan", "estimate", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run()
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err

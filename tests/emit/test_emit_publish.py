"""Writing: whole or not at all, and nothing of the user's lost."""

from __future__ import annotations

import json
import os

import pytest
from emit_plans import golden_plan, loopback_plan

from moai_planner.domain.errors import InputError
from moai_planner.emit.digest import content_digest
from moai_planner.emit.emit import emit


def tree(folder):
    """Path → bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_manifest_lists_every_file(tmp_path):
    """Law: manifest = files, with their digests and modes."""
    emit(golden_plan(), "bash", tmp_path / "out")
    files = tree(tmp_path / "out")
    listed = json.loads(files.pop("manifest.json"))["files"]
    assert {name: entry["sha256"] for name, entry in listed.items()} == {
        name: content_digest(content) for name, content in files.items()
    }
    for name, entry in listed.items():
        assert os.access(tmp_path / "out" / name, os.X_OK) == entry["executable"]


def test_another_plan_replaces_the_first_wholly(tmp_path):
    """Law: after the second emission nothing of the first is left."""
    emit(golden_plan(), "bash", tmp_path / "out")
    emit(loopback_plan(), "bash", tmp_path / "out")
    emit(loopback_plan(), "bash", tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert [p.name for p in tmp_path.iterdir()] and not list(tmp_path.glob(".*"))


def test_logs_and_notes_survive(tmp_path):
    """Law: what we did not write is not ours to delete."""
    emit(golden_plan(), "bash", tmp_path / "out")
    (tmp_path / "out/state/h").mkdir(parents=True)
    (tmp_path / "out/state/h/e.pid").write_text("1 2")
    emit(loopback_plan(), "bash", tmp_path / "out")
    assert (tmp_path / "out/state/h/e.pid").read_text() == "1 2"


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    """Law: a folder without our manifest is written only by force, and keeps its files even then."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "README.md").write_text("my own")
    with pytest.raises(InputError, match="not empty and not ours"):
        emit(golden_plan(), "bash", tmp_path)
    assert tree(tmp_path) == {"mine": b"precious", "README.md": b"my own"}
    emit(golden_plan(), "bash", tmp_path, force=True)
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "README.md.kept").read_text() == "my own"
    assert (tmp_path / "manifest.json").exists()


def test_edited_files_are_not_overwritten_unasked(tmp_path):
    """Law: a change by hand stops the emission until --force."""
    emit(golden_plan(), "bash", tmp_path / "out")
    (tmp_path / "out/lib.sh").write_text("# mine")
    with pytest.raises(InputError, match=r"lib\.sh"):
        emit(golden_plan(), "bash", tmp_path / "out")
    emit(golden_plan(), "bash", tmp_path / "out", force=True)
    assert (tmp_path / "out/lib.sh").read_text() != "# mine"


def test_a_failed_emission_leaves_the_old_one(tmp_path, monkeypatch):
    """Law: when writing fails, the folder is as it was and nothing lies beside it."""
    emit(golden_plan(), "bash", tmp_path / "out")
    before = tree(tmp_path)

    def full(path, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moai_planner.emit.publish._write", full)
    with pytest.raises(InputError, match="No space left"):
        emit(loopback_plan(), "bash", tmp_path / "out")
    assert tree(tmp_path) == before


def test_places_that_cannot_be_written(tmp_path):
    """Law: a file in the way is a problem of the input, and stays."""
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError):
            emit(golden_plan(), "bash", out)
    assert (tmp_path / "file").read_text() == "x"

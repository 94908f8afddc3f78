"""Target × contexts → files in memory, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass

from moai_planner.domain.errors import InputError, Problem
from moai_planner.emit.context import Context
from moai_planner.emit.templates import Target, environment


@dataclass(frozen=True)
class RenderedFile:
    """A file to be written."""

    path: str
    "Relative, with forward slashes."
    content: bytes
    executable: bool
    check: str


def render(target: Target, contexts: dict[str, list[Context]]) -> tuple[RenderedFile, ...]:
    """Every file of a target, sorted by path. Two files of one path are a mistake in the target."""
    made = environment(target.folder)
    files: dict[str, RenderedFile] = {}
    for line in target.files:
        template, path_template = made.get_template(line.template), made.from_string(line.path)
        for context in contexts[line.each]:
            path = path_template.render(context)
            if path in files or path.startswith("/") or ".." in path.split("/"):
                where = f"templates/{target.name}/target.yaml"
                raise InputError(Problem(where, line.template, path, "each file needs its own path inside"))
            content = template.render(context).rstrip("\n") + "\n"
            files[path] = RenderedFile(path, content.encode(), line.executable, line.check)
    return tuple(files[path] for path in sorted(files))

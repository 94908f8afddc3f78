"""Results to stdout, notes and progress to stderr, files whole or not at all.

with progress(len(points), "profile") as advance:
    for point in points:
        ...
        advance()
write_text(Path("plan.json"), text)
print_table("Pools", ("pool", "devices"), rows)
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moai_planner.domain.errors import InputError, Problem

NARROWEST_TEXT = 12
"""Characters below which a column of text is not folded further."""
WIDEST_PAGE = 200
"""Characters up to which a table in a file or a pipe is not folded at all."""
UNLIMITED_WIDTH = 100_000


def print_json(value: Any) -> None:
    """Write one JSON document to stdout, keys in the order given."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the result (stderr)."""
    print(text, file=sys.stderr, flush=True)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> None:
    """A table on stdout, nothing cut. Columns of numbers are right-aligned and never folded; a terminal too
    narrow for them wraps whole lines.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        longest = max(len(str(cell)) for cell in (column, *(row[index] for row in rows)))
        width = longest if numeric else min(longest, NARROWEST_TEXT)
        justify = "right" if numeric else "left"
        table.add_column(column, justify=justify, overflow="fold", min_width=width, no_wrap=numeric)
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    console = _console(sys.stdout)
    needed = console.measure(table, options=console.options.update(max_width=UNLIMITED_WIDTH))
    console.width = max(console.width, needed.minimum)
    if not sys.stdout.isatty() and needed.maximum <= WIDEST_PAGE:
        console.width = max(console.width, needed.maximum)
    with console.capture() as captured:
        if title:
            console.print(Text(title, style="bold"))
        console.print(table)
        for line in notes:
            console.print(line, markup=False)
        if notes:
            console.print()
    print("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def print_text(text: str = "") -> None:
    """Plain text on stdout."""
    print(text)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all. InputError when the place cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. InputError when the place cannot be written."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("is a directory")
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a device or a pipe: replacing it would take it away
            return
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def check_writable(path: Path) -> None:
    """InputError, before the long work, when `write_bytes` would fail for want of a place."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("is a directory")
        if not path.exists() or path.is_file():
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            os.unlink(temporary)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(
        Problem(str(path), "output", reason, "give a file in a folder that exists and can be written")
    )


@contextmanager
def progress(total: int | None, label: str) -> Iterator[Callable[..., None]]:
    """Show how far long work is: a bar on a terminal, a plain line at every tenth elsewhere.

    Yields `advance(steps=1, note="")`. `total` None = unknown.
    """
    if sys.stderr.isatty() and "NO_PROGRESS" not in os.environ:
        with _bar(total, label) as advance:
            yield advance
    else:
        yield _plain_lines(total, label)


@contextmanager
def _bar(total: int | None, label: str) -> Iterator[Callable[..., None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda steps=1, note="": bar.update(task, advance=steps, note=note)


def _plain_lines(total: int | None, label: str) -> Callable[..., None]:
    done, shown = 0, -1

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, shown
        done += steps
        tenth = 10 * done // total if total else done
        if tenth != shown:
            shown = tenth
            print(
                f"{label}: {done}" + (f"/{total}" if total else "") + (f" {note}" if note else ""),
                file=sys.stderr,
            )

    return advance


def _console(file: Any):
    from rich.console import Console

    width = None if file.isatty() else 160
    return Console(file=file, width=width, highlight=False)


def _is_number(cell: Any) -> bool:
    text = str(cell).strip().removesuffix("%").replace(",", "")
    first = text.split(" ")[0] if text else ""
    with suppress(ValueError):
        float(first)
        return True
    return first in ("", "-", "–")


def _text(cell: Any) -> Any:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text(str(cell))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

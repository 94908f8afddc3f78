"""`moai-plan`: the verbs, and the one place that turns errors into exit codes.

Exit codes: 0 fine; 1 the tool failed; 2 the input is wrong; 3 the answer is no. Nothing heavy is
imported here: each verb brings its own rooms when it runs, so `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from moai_planner.cli import calibrate, catalog, emit, estimate, profile, simulate, solve, validate
from moai_planner.domain.errors import Infeasible, InputError

EXIT_FAILED, EXIT_INPUT, EXIT_NO, EXIT_INTERRUPTED = 1, 2, 3, 130
MOST_PROBLEMS = 100
"""Shown of one input; the others are counted."""
_INTERRUPTED = "interrupted; nothing half-written"

app = typer.Typer(
    name="moai-plan",
    help="Plan which accelerators serve which language models, how, and at what cost.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("solve")(solve.solve)
app.command("emit")(emit.emit)
app.command("simulate")(simulate.simulate)
app.command("estimate")(estimate.estimate)
app.command("profile")(profile.profile)
app.command("calibrate")(calibrate.calibrate)
app.command("validate")(validate.validate)
app.add_typer(catalog.app, name="catalog")


def _show_version(wanted: bool) -> None:
    if wanted:
        from moai_planner import __version__

        print(f"moai-plan {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Plan which accelerators serve which language models, how, and at what cost."""


def run() -> None:
    """Entry point of the `moai-plan` command."""
    try:
        app()
    except SystemExit as stopped:
        if stopped.code == EXIT_INTERRUPTED:  # the command-line library ends so, without a word
            print(_INTERRUPTED, file=sys.stderr)
        raise
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''} in the input:", file=sys.stderr)
        for problem in error.problems[:MOST_PROBLEMS]:
            print(f"  {problem}", file=sys.stderr)
        if count > MOST_PROBLEMS:
            print(f"  … and {count - MOST_PROBLEMS} more", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except Infeasible as error:
        print(f"no: {error}", file=sys.stderr)
        sys.exit(EXIT_NO)
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except MemoryError:
        print("out of memory; plan fewer cells, windows or candidates", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if "MOAI_TRACEBACK" in os.environ:
            raise
        print(f"moai-plan failed, please report it: {type(error).__name__}: {error}", file=sys.stderr)
        print("set MOAI_TRACEBACK=1 to see where", file=sys.stderr)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    run()

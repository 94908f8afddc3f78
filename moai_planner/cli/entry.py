"""The `moai-plan` command. Until its modules are there an interrupt ends it as the system does, without a
traceback; then `main.run` answers."""

from __future__ import annotations

import signal


def run() -> None:
    """Entry point of the command."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:  # as shells start what runs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from moai_planner.cli import main

    signal.signal(signal.SIGINT, handler)
    main.run()

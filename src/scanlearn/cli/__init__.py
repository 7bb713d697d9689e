"""The command line: one function per verb. A function's signature is its options; its docstring is its help."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from scanlearn.cli.arguments import parse
from scanlearn.errors import ScanlearnError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0, or 2 after an error that the person can put right (one sentence, no traceback)."""
    # Read when torch is loaded: waiting threads that spin cost up to 17 times on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        verb, options, settings = parse(arguments)
        verb(**options, **settings)
        sys.stdout.flush()
    except ScanlearnError as error:
        from scanlearn.console import console

        console.print(f"scanlearn: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `scanlearn recipes | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

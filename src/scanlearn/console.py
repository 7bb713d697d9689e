"""What a person sees while something runs: one progress bar for everything, and plain lines around it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line for the person, on stderr, so that stdout stays for results."""
    console.print(text, markup=False)


def warn(text: str) -> None:
    """Print one line that the person should not miss."""
    console.print(f"warning: {text}", style="yellow", markup=False)


def next_command(command: str) -> None:
    """Every verb ends by printing the exact next command."""
    console.print(f"\nNext:  {command}", style="bold", markup=False)


def progress(**options: Any) -> Progress:
    """A bar with count, speed text (the task field ``info``), elapsed and remaining time.

    When stderr is no terminal the bar is silent; long loops then print plain lines themselves.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[info]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        disable=not sys.stderr.isatty(),
        **options,
    )


def track(
    items: Iterable[T], total: int, description: str, counts: Callable[[T], bool] = lambda _: True
) -> Iterator[T]:
    """Iterate under a progress bar of so many steps; items that do not count are none of them."""
    with progress() as bar:
        task = bar.add_task(description, total=total, info="")
        for item in items:
            yield item
            bar.advance(task, counts(item))

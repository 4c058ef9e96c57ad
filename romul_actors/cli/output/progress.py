"""The progress bar of commands that make many runs."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from romul_actors.cli.output.printing import Console


def progress(*, hidden: bool) -> Progress:
    """A progress bar, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=hidden),
        transient=True,
    )

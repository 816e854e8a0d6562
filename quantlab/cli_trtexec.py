"""``quantlab trtexec``: print the equivalent commands of NVIDIA's own tool."""

from pathlib import Path
from typing import Annotated

import typer

from quantlab.visible import visible


def trtexec(
    source: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="Config, or a run folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder, in place of the config's.")
    ] = None,
) -> None:
    """Print the trtexec (tensorrt_rtx) commands that build and measure what was built."""
    from quantlab import steps

    for precision, manifest, commands in steps.trtexec(source, output=output):
        typer.echo(f"# {precision}, built by {manifest.package} {manifest.version}")
        typer.echo(visible(commands.build))
        typer.echo(f"# {precision}, measured: quantlab's own plan")
        for line in commands.measure:
            typer.echo(visible(line))
        for note in commands.notes:
            typer.echo(f"# note: {visible(note)}")

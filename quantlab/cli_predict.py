"""``quantlab predict``: the classes that an engine sees in a picture or an array."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantlab.errors import ConfigError
from quantlab.visible import visible

if TYPE_CHECKING:
    from quantlab.predict import Guess
    from quantlab.records import Precision


def predict(
    target: Annotated[
        Path, typer.Argument(metavar="PLAN|RUN", help="Run folder, or an engine file.")
    ],
    given: Annotated[
        Path,
        typer.Option("--input", "-i", metavar="x.npy|IMAGE", help="As the model takes it."),
    ],
    *,
    precision: Annotated[
        str | None, typer.Option(help="Engine of a run folder: fp32, fp16 or int8, the default.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
) -> None:
    """Print the classes that an engine scores best, with their names."""
    from quantlab.predict import predict as run

    found = run(target, given, precision=_precision(precision), top=top)
    for note in found.notes:
        typer.echo(f"note: {visible(note)}", err=True)
    typer.echo(visible(found.engine))
    for number, guesses in enumerate(found.samples):
        origin = str(given) if len(found.samples) == 1 else f"{given}[{number}]"
        typer.echo(visible(origin))
        for rank, guess in enumerate(guesses, 1):
            typer.echo(
                f"{rank:>3}  {100 * guess.probability:6.2f} %  {visible(_name(guess))}"
                f"  ({guess.score:.4g})"
            )


def _name(guess: "Guess") -> str:
    return f"class {guess.index}" if guess.name is None else guess.name


def _precision(text: str | None) -> "Precision | None":
    from quantlab.records import PRECISIONS

    if text is None:
        return None
    for precision in PRECISIONS:
        if precision == text:
            return precision
    raise ConfigError(f"--precision {text}: choose from {', '.join(PRECISIONS)}")

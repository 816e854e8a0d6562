"""The command line: parse, call, print, exit code.

0 done; 2 bad input, one clear message; 3 a target of the config was missed; 1 anything else.
Libraries are imported inside the commands, so that help and completion answer at once.
"""

import gc
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from quantlab.cli_cache import app as cache_app
from quantlab.cli_explain import explain
from quantlab.cli_migrate import migrate
from quantlab.cli_predict import predict
from quantlab.cli_trtexec import trtexec
from quantlab.errors import QuantlabError
from quantlab.visible import visible_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantlab.pipeline import Run
    from quantlab.terminal import Terminal

app = typer.Typer(
    help="INT8 calibration and quantization for TensorRT, and a report of what it costs and gains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache_app, name="cache")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, JSON or TOML file.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Run folder, in place of the config's.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")]


@app.command()
def run(config: ConfigFile, output: Output = None, *, quiet: Quiet = False) -> None:
    """Do the whole job; goes on where a run that was stopped left off."""
    from quantlab import pipeline

    terminal = _terminal(quiet=quiet)
    _finish(pipeline.run(config, output=output, progress=terminal), terminal)


@app.command()
def init(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")], output: Output = None
) -> None:
    """Write a commented config made from the model's own inputs and outputs."""
    from quantlab.starter import init as make

    typer.echo(f"wrote {make(model, output=output)}; fill in the path of the samples, then run it")


@app.command()
def calibrate(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="YAML, JSON or TOML file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder; with --from, folder of the caches."),
    ] = None,
    *,
    finished: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Run folder to try methods on, no CONFIG."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME[:key=value,...]", help="With --from; may repeat."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Collect histograms and write the calibration cache, or try methods on a finished run."""
    if (config is None) == (finished is None):
        raise typer.BadParameter("expected either CONFIG or --from RUN, one of the two")
    if finished is not None:
        _try_methods(finished, methods or (), output)
    elif methods:
        raise typer.BadParameter("--method goes with --from; a CONFIG has its own 'method:'")
    elif config is not None:
        from quantlab import pipeline

        typer.echo(pipeline.calibrate(config, output=output, progress=_terminal(quiet=quiet)))


@app.command()
def analyze(
    config: ConfigFile,
    output: Output = None,
    *,
    samples: Annotated[
        int, typer.Option(min=1, help="Calibration samples to run, the last ones.")
    ] = 64,
    quiet: Quiet = False,
) -> None:
    """Say which layers, tensors and weights cost INT8 its accuracy, and what may repair it."""
    from rich.console import Console

    from quantlab import cli_analyze, pipeline

    terminal = _terminal(quiet=quiet)
    found = pipeline.analyze(config, output=output, progress=terminal, samples=samples)
    cli_analyze.show(found, Console())


@app.command()
def build(
    config: ConfigFile,
    output: Output = None,
    *,
    targets: Annotated[
        str, typer.Option(metavar="sm86,sm89,...", help="GPUs that TensorRT-RTX builds for.")
    ] = "",
    quiet: Quiet = False,
) -> None:
    """Build the engines from the calibration cache."""
    from quantlab import pipeline

    terminal = _terminal(quiet=quiet)
    for engine in pipeline.build(config, output=output, progress=terminal, targets=targets):
        typer.echo(f"{engine.precision}: {engine.path}, {engine.size_bytes / 1e6:.2f} MB")


@app.command()
def evaluate(config: ConfigFile, output: Output = None, *, quiet: Quiet = False) -> None:
    """Measure the engines' accuracy and speed."""
    from quantlab import pipeline

    typer.echo(pipeline.evaluate(config, output=output, progress=_terminal(quiet=quiet)))


@app.command()
def report(
    config: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="Config, or a run folder.")],
    output: Output = None,
) -> None:
    """Write the report of what was measured."""
    from quantlab import pipeline

    terminal = _terminal(quiet=False)
    _finish(pipeline.report(config, output=output, progress=terminal), terminal)


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...")]) -> None:
    """Put two or more run folders side by side."""
    from rich.console import Console

    from quantlab import reports

    found = [reports.load(folder) for folder in runs]
    Console().print(reports.compare_table(found, [folder.resolve().name for folder in runs]))


app.command()(explain)
app.command()(migrate)
app.command()(predict)
app.command()(trtexec)


@app.command()
def doctor() -> None:
    """Say which engines and devices are usable here, and why others are not."""
    from quantlab.doctor import findings

    for finding in findings():
        typer.echo(finding)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config file."""
    import json

    from quantlab import configfile
    from quantlab.plugs import PLUGS

    typer.echo(json.dumps(configfile.schema(PLUGS), indent=2))


@app.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from quantlab import __version__

        typer.echo(f"quantlab {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; errors raised on purpose become one message and their exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except QuantlabError as error:
        typer.secho(f"quantlab: {visible_lines(str(error))}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)


def _try_methods(run: Path, methods: "Sequence[str]", output: Path | None) -> None:
    gc.disable()  # most of the time goes into loading libraries, and collecting adds a fifth to it
    try:
        from quantlab import cli_variants, variants

        cli_variants.show(variants.try_methods(run, methods, output=output))
    finally:
        gc.enable()


def _stop(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second one would break into the way out
    sys.exit("quantlab: stopped; the same command goes on from the last step or checkpoint")


def _terminal(*, quiet: bool) -> "Terminal":
    from quantlab.terminal import Terminal

    return Terminal(quiet=quiet)


def _finish(run: "Run", terminal: "Terminal") -> None:
    from rich.console import Console

    from quantlab import pipeline, reports

    for text in run.report.warnings:
        terminal.warn(text)
    Console().print(*reports.result_tables(run.report), sep="")
    typer.echo(reports.verdict(run.report))
    typer.echo(f"report: {run.folder / 'report.html'}")
    pipeline.check_targets(run.report)

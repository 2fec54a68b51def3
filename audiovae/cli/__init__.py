"""The `audiovae` command: one file at a time, no cluster, starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import audiovae
from audiovae.cli.morph import EXAMPLE as MORPH_EXAMPLE
from audiovae.cli.morph import morph
from audiovae.cli.timbre import app as timbre_app
from audiovae.commands import (
    CheckpointOption,
    DeviceOption,
    ExitStatus,
    KbpsOption,
    MaxBytesOption,
    OverwriteOption,
    PolishOption,
    QualityOption,
    UsageProblem,
    complain,
    counted,
    end_process,
    load_for_command,
    one_line,
    refuse_idle_quality,
    require_new,
    require_new_audio,
    run_command,
)
from audiovae.errors import BitstreamError

if TYPE_CHECKING:
    from audiovae.reports import FileReport

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"audiovae {audiovae.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Audio through a hierarchical VAE: to small files and back.

    For folders and clusters: python -m pipelines.batch_transform --help
    """


_Source = Annotated[Path, typer.Argument(metavar="IN", help="Audio of any kind.")]


@app.command(epilog="[bold]Example:[/bold]  audiovae encode in.wav out.avae --kbps 2.8")
def encode(
    context: typer.Context,
    source: _Source,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="A name ending in .avae")],
    quality: QualityOption = 6,
    kbps: KbpsOption = None,
    max_bytes: MaxBytesOption = None,
    checkpoint: CheckpointOption = "base",
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Compress a file."""
    refuse_idle_quality(context, kbps, max_bytes)
    if destination.suffix.lower() != ".avae":
        raise UsageProblem(f"OUT: expected a name ending in .avae, got {destination}; rename it")
    report = _process(
        source, destination, "compress", checkpoint, device, overwrite, quality, kbps, max_bytes
    )
    size = destination.stat().st_size
    typer.echo(
        f"{one_line(destination)}: {size} bytes, {report.kbps:.2f} kbps, {report.seconds:.2f} s, "
        f"{counted(report.num_channels, 'channel')}, "
        f"log-mel difference {report.log_mel_l1_db:.2f} dB"
    )
    if report.note:
        typer.echo(report.note)


@app.command(epilog="[bold]Example:[/bold]  audiovae decode in.avae out.wav --start 60")
def decode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A compressed file.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help=".wav, .flac or .ogg")],
    start: Annotated[float, typer.Option(min=0, help="Where to begin, seconds.")] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0, help="How much, seconds.")] = None,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Put silence where the file is damaged.")
    ] = False,
    checkpoint: Annotated[
        str | None, typer.Option(help="The model that wrote the file. Default: as it says.")
    ] = None,
    polish: PolishOption = 16,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Decode a compressed file, or a time range of it.

    Exit status 3 says that parts were damaged and replaced by silence.
    """
    from audiovae.codec import AvaeReader

    try:
        with AvaeReader(source, salvage=salvage) as reader:  # before the seconds a model takes
            header = reader.header
    except BitstreamError as error:
        name = one_line(source)
        raise BitstreamError(str(error) if name in str(error) else f"{name}: {error}") from None
    require_new_audio(destination, overwrite, source)

    from audiovae.compressed import find_model_name
    from audiovae.files import decode_file

    report = decode_file(
        source,
        destination,
        load_for_command(checkpoint or find_model_name(header), device),
        start_seconds=start,
        duration_seconds=duration,
        salvage=salvage,
        polish_steps=polish,
    )
    typer.echo(f"{one_line(destination)}: {report.seconds:.2f} s")
    if report.lost_seconds:
        lost = ", ".join(f"{begin:.1f} to {end:.1f} s" for begin, end in report.lost_seconds)
        complain(f"{source}: expected whole chunks, got damage; silence stands for {lost}")
        raise typer.Exit(ExitStatus.FAILED_INPUTS)


@app.command(epilog="[bold]Example:[/bold]  audiovae resynth in.wav out.wav --quality 4")
def resynth(
    source: _Source,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help=".wav, .flac or .ogg")],
    quality: QualityOption = 6,
    polish: PolishOption = 16,
    checkpoint: CheckpointOption = "base",
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Send a file through the model's latents and back: what decoding its .avae gives."""
    report = _process(
        source, destination, "resynthesize", checkpoint, device, overwrite, quality, polish=polish
    )
    difference = (
        ""
        if report.log_mel_l1_db is None
        else (
            f", estimated {report.estimated_kbps:.2f} kbps, "
            f"log-mel difference {report.log_mel_l1_db:.2f} dB"
        )
    )
    channels = counted(report.num_channels, "channel")
    typer.echo(f"{one_line(destination)}: {report.seconds:.2f} s, {channels}{difference}")


@app.command(epilog="[bold]Example:[/bold]  audiovae info in.avae")
def info(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Audio, a compressed file, a model file or its name."),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="The model that wrote a compressed file, if it is none that ships.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what a file is; of a compressed file also what is damaged in it."""
    from audiovae.audio import is_compressed
    from audiovae.pretrained import is_run, is_shipped

    is_model = path.suffix == ".safetensors" or is_run(path)
    if is_model or (is_shipped(path) and not path.exists()):
        lines = _model_lines(path)
    elif is_compressed(path):
        from audiovae.inspection import compressed_lines

        lines, is_damaged = compressed_lines(path, checkpoint)
        for line in lines:
            typer.echo(line)
        raise typer.Exit(ExitStatus.FAILED_INPUTS if is_damaged else ExitStatus.DONE)
    else:
        from audiovae.audio import probe_audio

        facts = probe_audio(path)
        named = {**asdict(facts), "seconds": round(facts.duration_seconds, 6)}
        lines = [f"{name}: {value}" for name, value in named.items()]
    for line in lines:
        typer.echo(line)


def _process(
    source: Path,
    destination: Path,
    product: str,
    checkpoint: str,
    device: str,
    overwrite: bool,
    quality: int,
    kbps: float | None = None,
    max_bytes: int | None = None,
    polish: int = 0,
) -> FileReport:
    from audiovae.sources import probe_source

    probe_source(source)  # a wrong path is known before the model is loaded
    if product == "compress":
        require_new(destination, overwrite, source)
    else:
        require_new_audio(destination, overwrite, source)

    from audiovae.files import process_file
    from audiovae.transform import TransformSettings

    settings = TransformSettings((product,), quality, kbps, max_bytes, polish_steps=polish)
    model = load_for_command(checkpoint, device)
    return process_file(source, {product: destination}, model, settings)


def _model_lines(path: Path) -> list[str]:
    from audiovae.checkpoint import load_checkpoint, load_vae
    from audiovae.models.identity import model_id
    from audiovae.pretrained import find_checkpoint

    checkpoint = load_checkpoint(find_checkpoint(path))
    parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    lines = [f"kind: {checkpoint.kind}", f"config: {checkpoint.config.name}"]
    if checkpoint.kind == "vae":
        vae = load_vae(checkpoint, source=str(path))
        lines.append(f"id: {model_id(vae, checkpoint.config, checkpoint.frequency_table)}")
    lines += [f"parameters: {parameters}"]
    if checkpoint.quality_scale:
        lines.append("quality scale: an ideal coder's rate, and the log-mel difference, on the")
        lines.append("clips held back from training; one channel, without headers")
    lines += [
        f"quality {point.quality}: {point.kbps:.2f} kbps, {point.log_mel_l1_db:.2f} dB"
        for point in checkpoint.quality_scale
    ]
    facts = asdict(checkpoint.provenance)
    metrics = facts.pop("metrics")
    lines += [f"{name}: {value}" for name, value in facts.items()]
    lines += [f"last validation, {name}: {value:g}" for name, value in metrics.items()]
    return lines


app.command(epilog=MORPH_EXAMPLE)(morph)
app.add_typer(timbre_app, name="timbre")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="audiovae")


if __name__ == "__main__":
    end_process(main())

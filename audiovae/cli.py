"""The `audiovae` command: one file at a time, no cluster, starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from audiovae.commands import end_process, run_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Audio through a hierarchical VAE and back. For folders and clusters: "
    "python -m pipelines.batch_transform --help",
)


@app.command(epilog="[bold]Example:[/bold]  audiovae resynth in.wav out.wav --quality 4")
def resynth(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio of any kind.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help=".wav, .flac or .ogg")],
    quality: Annotated[
        int, typer.Option(min=1, max=8, help="1 (fewest bits) to 8 (closest to the source).")
    ] = 6,
    checkpoint: Annotated[str, typer.Option(help="Name of a model, or path of its file.")] = "base",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Send a file through the model's latents and back."""
    from audiovae.audio import probe_audio
    from audiovae.errors import AudioWriteError

    probe_audio(source)  # a wrong path is known before the model is loaded
    if destination.exists() and not overwrite:
        raise AudioWriteError(
            f"{destination}: expected a new file, got one that exists; "
            "choose another name or add --overwrite"
        )

    from audiovae.checkpoint import load_model
    from audiovae.transform import resynthesize_file

    report = resynthesize_file(source, destination, load_model(checkpoint), quality, device)
    typer.echo(
        f"{destination}: {report.seconds:.2f} s, {report.num_channels} channels, "
        f"estimated {report.estimated_kbps:.2f} kbps, "
        f"log-mel difference {report.log_mel_l1_db:.2f} dB"
    )


@app.command(epilog="[bold]Example:[/bold]  audiovae info in.wav")
def info(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Audio, or a model file.")],
) -> None:
    """Say what a file is."""
    if path.suffix == ".safetensors":
        for line in _model_lines(path):
            typer.echo(line)
        return

    from audiovae.audio import probe_audio

    facts = probe_audio(path)
    for name, value in {**asdict(facts), "seconds": round(facts.duration_seconds, 6)}.items():
        typer.echo(f"{name}: {value}")


def _model_lines(path: Path) -> list[str]:
    from audiovae.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    lines = [f"kind: {checkpoint.kind}", f"config: {checkpoint.config.name}"]
    lines += [f"parameters: {parameters}"]
    lines += [f"{name}: {value}" for name, value in asdict(checkpoint.provenance).items()]
    lines += [
        f"quality {point.quality}: {point.kbps:.2f} kbps, {point.log_mel_l1_db:.2f} dB"
        for point in checkpoint.quality_scale
    ]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="audiovae")


if __name__ == "__main__":
    end_process(main())

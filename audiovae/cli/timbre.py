"""`audiovae timbre`: a library of named timbres."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiovae.cli.morph import (
    KeepLoudnessOption,
    LevelsOption,
    LibraryOption,
    parse_levels,
    written,
)
from audiovae.commands import (
    CheckpointOption,
    DeviceOption,
    ExitStatus,
    OverwriteOption,
    PolishOption,
    QualityOption,
    amount_option,
    complain,
    counted,
    load_for_command,
    one_line,
    require_new_audio,
)
from audiovae.errors import AudioVAEError
from audiovae.timbre.library import TimbreLibrary, default_library

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Save timbres under a name, and play other sounds with them.",
)

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What the timbre is called.", show_default=False)
]


@app.command(epilog="[bold]Example:[/bold]  audiovae timbre save oboe oboe_*.wav")
def save(
    name: _Name,
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Audio files, or directories of them; the timbre is their mean.",
            show_default=False,
        ),
    ],
    quality: QualityOption = 6,
    checkpoint: CheckpointOption = "timbre",
    library: LibraryOption = None,
    device: DeviceOption = "cpu",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace NAME if it exists.")
    ] = False,
) -> None:
    """Measure a timbre, and keep it under a name."""
    shelf = _library(library)
    shelf.require_new(name, overwrite=overwrite)

    from audiovae.morph.targets import measure_timbre
    from audiovae.timbre.library import timbre_bytes

    model = load_for_command(checkpoint, device)
    found = measure_timbre(sources, model, quality=quality)
    data = timbre_bytes(found.timbre, model.name, found.num_files)
    path = shelf.save(name, data, overwrite=overwrite)
    left_out = f", {found.num_failed} left out" if found.num_failed else ""
    typer.echo(f"{one_line(path)}: the mean of {counted(found.num_files, 'file')}{left_out}")
    raise typer.Exit(ExitStatus.FAILED_INPUTS if found.num_failed else ExitStatus.DONE)


@app.command("list", epilog="[bold]Example:[/bold]  audiovae timbre list")
def list_timbres(library: LibraryOption = None) -> None:
    """Name every saved timbre, with its model and how many files it is the mean of."""
    shelf = _library(library)
    names = shelf.names()
    failed = False
    for name in names:
        try:
            facts = shelf.facts(name)
        except (AudioVAEError, OSError) as problem:
            complain(problem)
            failed = True
            continue
        model = f"model {facts.model_name} ({facts.model_id})"
        typer.echo(f"{name}: {model}, {counted(facts.num_files, 'file')}")
    if not names:
        typer.echo(f"no timbre is saved in {one_line(shelf.folder)}")
    raise typer.Exit(ExitStatus.FAILED_INPUTS if failed else ExitStatus.DONE)


@app.command(epilog="[bold]Example:[/bold]  audiovae timbre apply oboe in.wav out.wav")
def apply(
    name: _Name,
    source: Annotated[Path, typer.Argument(metavar="IN", help="Audio of any kind.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help=".wav, .flac or .ogg")],
    amount: Annotated[
        float, amount_option("How far to go: 0 is IN's own timbre, 1 is NAME's.")
    ] = 1.0,
    levels: LevelsOption = None,
    keep_loudness: KeepLoudnessOption = False,
    quality: QualityOption = 6,
    polish: PolishOption = 16,
    checkpoint: CheckpointOption = "timbre",
    library: LibraryOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Play a file with a saved timbre."""
    from audiovae.sources import probe_source

    wanted = parse_levels(levels)
    data = _library(library).read(name)
    probe_source(source)  # a wrong path is known before the model is loaded
    require_new_audio(destination, overwrite, source)

    from audiovae.morph.plan import TimbreWay
    from audiovae.morph.settings import MorphSettings
    from audiovae.timbre.library import timbre_from_bytes

    target = timbre_from_bytes(data, name)
    model = load_for_command(checkpoint, device)
    settings = MorphSettings(
        levels=wanted, keep_loudness=keep_loudness, quality=quality, polish_steps=polish
    )
    TimbreWay(source, target, model, settings).step(destination, amount)
    typer.echo(written(destination))


@app.command(epilog="[bold]Example:[/bold]  audiovae timbre remove oboe")
def remove(name: _Name, library: LibraryOption = None) -> None:
    """Delete a saved timbre."""
    _library(library).remove(name)
    typer.echo(f"{name}: removed")


def _library(folder: Path | None) -> TimbreLibrary:
    return TimbreLibrary(folder or default_library())

"""Go from one sound to another in steps: `python -m pipelines.timbre_morph A B`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from audiovae.audio import is_audio_by_content
from audiovae.cli.morph import (
    ContentOption,
    CurveOption,
    FirstEnd,
    KeepLoudnessOption,
    LevelsOption,
    LibraryOption,
    SecondEnd,
    parse_levels,
    prepare_morph,
)
from audiovae.commands import (
    CheckpointOption,
    DeviceOption,
    PolishOption,
    QualityOption,
    end_process,
    load_for_command,
    one_line,
    run_command,
)

if TYPE_CHECKING:
    from audiovae.morph.plan import Morph

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_PAGE: Final = "morph"

_EXAMPLE = "\n\n".join(
    (
        "[bold]Example:[/bold]  python -m pipelines.timbre_morph violin.wav flutes/ "
        "--output-dir violin_to_flute",
        "writes nine sounds, [cyan]00_0.000.wav[/cyan] (the violin) to [cyan]08_1.000.wav[/cyan] "
        "(the same phrase with the mean timbre of the flutes), with [cyan]morph.html[/cyan] to "
        "play them and [cyan]contact_sheet.png[/cyan] to see them.",
    )
)


@app.command(epilog=_EXAMPLE)
def timbre_morph(
    first: FirstEnd,
    second: SecondEnd,
    output_dir: Annotated[Path, typer.Option(help="Where the sounds go.", show_default=False)],
    steps: Annotated[int, typer.Option(min=2, max=100, help="Sounds, both ends included.")] = 9,
    glide: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Instead of steps one sound, which goes from A to B in this many seconds; 0: in "
            "all its length.",
        ),
    ] = None,
    content: ContentOption = "a",
    levels: LevelsOption = None,
    curve: CurveOption = "linear",
    keep_loudness: KeepLoudnessOption = False,
    quality: QualityOption = 6,
    polish: PolishOption = 16,
    checkpoint: CheckpointOption = "timbre",
    library: LibraryOption = None,
    format: Annotated[Literal["wav", "flac", "ogg"], typer.Option(help="Of the sounds.")] = "wav",
    device: DeviceOption = "cpu",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.")
    ] = False,
) -> None:
    """Play one phrase with every timbre between two, or let one sound become another."""
    from audiovae.morph.settings import MorphSettings, step_amounts
    from pipelines.results import require_new
    from pipelines.runner.lock import OutputLock
    from pipelines.sounds_page import SoundsFacts, page_names, write_sounds_page

    amounts = step_amounts(steps, curve) if glide is None else ()
    names = [f"{i:02d}_{amount:.3f}.{format}" for i, amount in enumerate(amounts)]
    sounds = [output_dir / name for name in names or [f"glide.{format}"]]
    written = [*(sound.name for sound in sounds), *page_names(_PAGE)]
    require_new(output_dir, written, overwrite, inputs=(first, second, content))
    settings = MorphSettings(curve, parse_levels(levels), keep_loudness, quality, format, polish)
    model = load_for_command(checkpoint, device)
    way = prepare_morph(first, second, content, model, library, settings)
    with OutputLock(output_dir, Path(first).absolute().parent):
        if glide is None:
            _write_steps(way, sounds, amounts)
        else:
            way.glide(sounds[0], glide)
        labels = [f"{100 * amount:.1f} %" for amount in amounts] or ["glide"]
        title = f"{Path(first).name} to {Path(second).name}"
        facts = SoundsFacts(title, checkpoint, (f"content: {content}", curve), _PAGE)
        shown = _between_the_ends(first, dict(zip(labels, sounds, strict=True)), second)
        page = write_sounds_page(output_dir, shown, facts)
    typer.echo(f"sounds: {len(sounds)} in {one_line(output_dir)}\npage: {one_line(page)}")


def _write_steps(way: Morph, sounds: Sequence[Path], amounts: Sequence[float]) -> None:
    from pipelines.training_display import CountingDisplay

    with CountingDisplay("sounds", sys.stdout) as display:
        for done, (sound, amount) in enumerate(zip(sounds, amounts, strict=True), start=1):
            way.step(sound, amount)
            display.show(done, len(sounds))


def _between_the_ends(first: str, made: Mapping[str, Path], second: str) -> dict[str, Path]:
    """What was made, by label, between A and B as they are, where they are audio files."""
    ends = ({"A": Path(first)}, {"B": Path(second)})
    before, after = (
        {label: path for label, path in end.items() if path.is_file() and is_audio_by_content(path)}
        for end in ends
    )
    return {**before, **made, **after}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.timbre_morph")


if __name__ == "__main__":
    end_process(main())

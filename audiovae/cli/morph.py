"""`audiovae morph`: one sound between two, or gliding from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiovae.commands import (
    CheckpointOption,
    DeviceOption,
    OverwriteOption,
    PolishOption,
    QualityOption,
    UsageProblem,
    amount_option,
    counted,
    load_for_command,
    one_line,
    require_new_audio,
)

if TYPE_CHECKING:
    from audiovae.checkpoint import Model
    from audiovae.morph.plan import Content, Morph
    from audiovae.morph.settings import MorphSettings

EXAMPLE = "[bold]Example:[/bold]  audiovae morph violin.wav flute.wav between.wav --amount 0.5"

# Shared with `pipelines.timbre_morph`.
FirstEnd = Annotated[
    str,
    typer.Argument(
        metavar="A",
        help="Where it begins: an audio file; with --content FILE also a directory (the mean "
        "timbre of its files) or a saved timbre.",
        show_default=False,
    ),
]
SecondEnd = Annotated[
    str,
    typer.Argument(
        metavar="B",
        help="Where it goes: an audio file, a directory, or a saved timbre.",
        show_default=False,
    ),
]
ContentOption = Annotated[
    str,
    typer.Option(
        help="What is played: a, the content of A, whose timbre moves; blend, where all of A "
        "becomes B; or an audio file, which takes the timbres of A and B."
    ),
]
LevelsOption = Annotated[
    str | None,
    typer.Option(
        help="Levels that move besides the timbre code, as 0,1 (0 is the coarsest). Default: "
        "none; all in a blend; for a model without a timbre code the coarser half.",
        show_default=False,
    ),
]
CurveOption = Annotated[
    Literal["linear", "ease", "spherical"],
    typer.Option(help="How the way is travelled: evenly, slowly at both ends, or along an arc."),
]
KeepLoudnessOption = Annotated[
    bool, typer.Option("--keep-loudness", help="Keep every half second as loud as it was.")
]
LibraryOption = Annotated[
    Path | None,
    typer.Option(help="Directory of saved timbres. Default: the user's own.", show_default=False),
]


def morph(
    first: FirstEnd,
    second: SecondEnd,
    destination: Annotated[Path, typer.Argument(metavar="OUT", help=".wav, .flac or .ogg")],
    amount: Annotated[
        float | None,
        amount_option("How far to go: 0 is A, 1 is B; below and above goes on. Default: 0.5."),
    ] = None,
    glide: Annotated[
        float | None,
        typer.Option(min=0, help="Go from A to B within this many seconds; 0: within the file."),
    ] = None,
    content: ContentOption = "a",
    levels: LevelsOption = None,
    curve: CurveOption = "linear",
    keep_loudness: KeepLoudnessOption = False,
    quality: QualityOption = 6,
    polish: PolishOption = 16,
    checkpoint: CheckpointOption = "timbre",
    library: LibraryOption = None,
    device: DeviceOption = "cpu",
    overwrite: OverwriteOption = False,
) -> None:
    """Play A with a timbre between its own and that of B.

    OUT has the sample rate and channels of the file whose content it plays, and its length; in a
    blend those of A, and a length between.
    """
    if amount is not None and glide is not None:
        raise UsageProblem("expected --amount or --glide, got both; leave one out")
    if curve == "ease" and glide is None:
        raise UsageProblem(
            "--curve: expected linear or spherical for one amount, got ease, which is for --glide; "
            "choose another, or glide"
        )
    wanted = parse_levels(levels)
    inputs = [first, second, *([] if content in ("a", "blend") else [content])]
    require_new_audio(destination, overwrite, *inputs)

    from audiovae.morph.settings import MorphSettings

    settings = MorphSettings(curve, wanted, keep_loudness, quality, polish_steps=polish)
    model = load_for_command(checkpoint, device)
    way = prepare_morph(first, second, content, model, library, settings)
    if glide is None:
        way.step(destination, 0.5 if amount is None else amount)
    else:
        way.glide(destination, glide)
    typer.echo(written(destination))


def written(destination: Path) -> str:
    """What is told of a sound that was made."""
    from audiovae.audio import probe_audio

    info = probe_audio(destination)
    channels = counted(info.num_channels, "channel")
    return f"{one_line(destination)}: {info.duration_seconds:.2f} s, {channels}"


def parse_levels(text: str | None) -> tuple[int, ...] | None:
    """Read the value of `--levels`.

    Raises:
        UsageProblem: If it is not a list of numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UsageProblem(
            f"--levels: expected numbers with commas between, as 0,1, got '{text}'; "
            "0 is the coarsest level"
        )
    return tuple(sorted({int(part) for part in parts}))


def prepare_morph(
    first: str,
    second: str,
    content: str,
    model: Model,
    library: Path | None,
    settings: MorphSettings,
) -> Morph:
    """Measure both ends of what the command line asks for.

    Raises:
        UsageProblem: If `content` is neither a word it may be nor a file.
    """
    from audiovae.morph.plan import plan_morph
    from audiovae.timbre.library import TimbreLibrary, default_library

    words: dict[str, Content] = {"a": "a", "blend": "blend"}
    if content not in words and not Path(content).is_file():
        raise UsageProblem(
            f"--content: expected a, blend or an audio file, got '{content}', which is no file"
        )
    saved = TimbreLibrary(library or default_library())
    return plan_morph(first, second, words.get(content, Path(content)), model, saved, settings)

"""Make new sounds: `python -m pipelines.generate --output-dir OUT`."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from audiovae.commands import (
    CheckpointOption,
    Interrupted,
    QualityOption,
    UsageProblem,
    counted,
    end_process,
    load_for_command,
    one_line,
    refuse_given,
    run_command,
)
from audiovae.replacing import replacing
from pipelines.options import Device

if TYPE_CHECKING:
    from audiovae.audio import Clip
    from audiovae.generation import Sampler

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
_FACTS_NAME: Final = "generate.json"
_PAGE: Final = "generate"
_MEND: Final = "only, where it has a meaning; leave it out, or see --help"
_TEMPERATURE: Final = "0.7"
_SECONDS: Final = 6.0
_SHOWN: Final = 100  # by the page

_EXAMPLE = "\n\n".join(
    (
        "[bold]Examples:[/bold]  python -m pipelines.generate --output-dir new --num 8",
        "python -m pipelines.generate --output-dir more --like loop.wav --keep coarse:2",
        "python -m pipelines.generate --output-dir on --continue loop.wav --seconds 5",
        "python -m pipelines.generate --output-dir way --from a.wav --to b.wav --steps 7",
        "Each writes numbered sounds, [cyan]generate.html[/cyan] to play them, "
        "[cyan]contact_sheet.png[/cyan] and generate.json. Same seed, same bytes.",
    )
)


@dataclass(frozen=True, slots=True)
class Request:
    """The command line: what is to be made of which clips."""

    num: int
    seconds: float | None
    seed: int
    like: Path | None
    keep: str
    go_on: Path | None
    start: Path | None
    end: Path | None
    steps: int
    along: Literal["line", "arc"]

    @property
    def sources(self) -> list[Path]:
        """Clips that are read."""
        named = (self.like, self.go_on, self.start, self.end)
        return [path for path in named if path is not None]

    @property
    def total(self) -> int:
        """Sounds that are made."""
        return self.num if self.start is None else self.steps


@app.command(epilog=_EXAMPLE)
def generate(
    context: typer.Context,
    output_dir: Annotated[Path, typer.Option(help="Where the sounds go.", show_default=False)],
    num: Annotated[int, typer.Option(min=1, max=1000, help="How many sounds.")] = 8,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Length; of what is added, with --continue. Default: 6."),
    ] = None,
    temperature: Annotated[
        str,
        typer.Option(
            help="0: the most likely sound, 1: the prior; or one for each level, coarse to fine, "
            "as in 0.6,0.7,0.8,0.8."
        ),
    ] = _TEMPERATURE,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    quality: QualityOption = 6,
    like: Annotated[
        Path | None, typer.Option(help="Vary this clip: keep some levels, draw the others.")
    ] = None,
    keep: Annotated[
        str, typer.Option(help="With --like: coarse:N or fine:N, how many levels stay.")
    ] = "coarse:3",
    go_on: Annotated[
        Path | None, typer.Option("--continue", help="Continue this clip for --seconds.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="With --to: go from this clip to that one.")
    ] = None,
    end: Annotated[Path | None, typer.Option("--to", help="See --from.")] = None,
    steps: Annotated[
        int, typer.Option(min=2, max=100, help="With --from: sounds on the way, with both ends.")
    ] = 5,
    along: Annotated[
        Literal["line", "arc"], typer.Option(help="With --from: straight, or on the sphere.")
    ] = "line",
    label: Annotated[
        str | None, typer.Option(help="Class of the sounds, for a model trained with labels.")
    ] = None,
    pitch: Annotated[
        float | None,
        typer.Option(min=20, max=5000, help="Hz, for a model trained with pitch."),
    ] = None,
    checkpoint: CheckpointOption = "base",
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")
    ] = False,
) -> None:
    """Draw sounds from the model's prior, alone or with a part of a given clip kept."""
    from audiovae.generation import Sampler, SamplingSettings
    from audiovae.sampling import level_temperatures
    from audiovae.sources import probe_source
    from pipelines.runner.local import resolve_device

    if like is None:
        refuse_given(context, ("keep",), f"with --like {_MEND}")
    if start is None:
        refuse_given(context, ("steps", "along"), f"with --from {_MEND}")
    else:  # nothing is drawn
        refuse_given(context, ("num", "seed", "temperature"), f"without --from {_MEND}")
    request = Request(num, seconds, seed, like, keep, go_on, start, end, steps, along)
    _check(request, output_dir, overwrite)
    temperatures = _numbers(temperature)
    for source in request.sources:
        probe_source(source)
    model = load_for_command(checkpoint, resolve_device(device))
    settings = SamplingSettings(level_temperatures(model, temperatures), quality, label, pitch)
    num_levels = len(model.vae.config.level_names)
    kept = _levels(keep, num_levels) if like is not None else ()
    facts = {"model": model.id, "temperatures": settings.temperatures, "quality": quality}
    facts |= {"label": label, "pitch_hz": pitch, "seed": seed}
    notes: tuple[str, ...] = (f"quality {quality}", f"seed {seed}")
    if request.start is None:  # on the way between two clips nothing is drawn
        notes = (f"temperature {temperature}", *notes)
    sounds = _sounds(request, Sampler(model, settings), kept)
    _write(sounds, output_dir, request, facts, checkpoint, notes)


def sound_seed(seed: int, index: int) -> int:
    """The seed of one of several sounds: it does not depend on how many there are."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _sounds(
    request: Request, sampler: Sampler, kept: tuple[int, ...]
) -> Iterator[tuple[str, Clip]]:
    """Each sound with its label, one at a time."""
    from audiovae.audio import read_audio

    if request.start is not None and request.end is not None:
        ends = [read_audio(path) for path in (request.start, request.end)]
        amounts = [step / (request.steps - 1) for step in range(request.steps)]
        clips = sampler.between(ends[0], ends[1], amounts, request.along)
        yield from zip((f"{100 * amount:.1f} %" for amount in amounts), clips, strict=True)
        return
    source = request.like or request.go_on
    clip = None if source is None else read_audio(source)
    seconds = _SECONDS if request.seconds is None else request.seconds
    for index in range(request.num):
        seed = sound_seed(request.seed, index)
        if clip is None:
            yield f"sample {index}", sampler.fresh(seconds, seed)
        elif request.like is not None:
            yield f"variation {index}", sampler.varied(clip, kept, seed)
        else:
            yield f"continuation {index}", sampler.continued(clip, seconds, seed)


def _write(
    sounds: Iterator[tuple[str, Clip]],
    output_dir: Path,
    request: Request,
    facts: dict[str, object],
    checkpoint: str,
    notes: tuple[str, ...],
) -> None:
    """Write the sounds, and the page that shows them."""
    from audiovae.audio import write_audio
    from pipelines.runner.lock import OutputLock
    from pipelines.runner.stopping import StopRequest
    from pipelines.sounds_page import SoundsFacts, write_sounds_page
    from pipelines.training_display import CountingDisplay

    root = request.sources[0].resolve().parent if request.sources else output_dir
    # A clip that is varied or continued stands first; of two, the sounds lie between them.
    shown = {one_line(path.name): path for path in request.sources[:1]}
    with OutputLock(output_dir, root), StopRequest() as stop, CountingDisplay("sounds") as display:
        stop.immediate = False
        for index, (label, clip) in enumerate(sounds):
            path = output_dir / _sound_name(index)
            write_audio(path, clip)
            if len(shown) < _SHOWN:
                shown[label] = path
            display.show(index + 1, request.total)
            if stop.requested:
                raise Interrupted("stopped; what is written is whole, run again with --overwrite")
        _write_facts(output_dir / _FACTS_NAME, request, facts)
        shown |= {one_line(path.name): path for path in request.sources[1:]}
        page_facts = SoundsFacts(_title(request), checkpoint, notes, _PAGE)
        page = write_sounds_page(output_dir, shown, page_facts)
    sys.stdout.write(f"sounds: {request.total} in {one_line(output_dir)}\npage: {one_line(page)}\n")


def _title(request: Request) -> str:
    names = [one_line(path.name) for path in request.sources]
    if request.start is not None:
        return " to ".join(names)
    if request.like is not None:
        return f"variations of {names[0]}"
    if request.go_on is not None:
        return f"continuations of {names[0]}"
    return counted(request.num, "new sound")


def _sound_name(index: int) -> str:
    return f"{index:03d}.wav"


def _write_facts(path: Path, request: Request, facts: dict[str, object]) -> None:
    """What made the sounds; no paths, only names."""
    asked = {
        "num": request.num,
        "seconds": request.seconds,
        "keep": request.keep if request.like is not None else None,
        "steps": request.steps if request.start is not None else None,
        "sources": [one_line(source.name) for source in request.sources],
    }
    with replacing(path) as draft:
        draft.write_text(json.dumps(facts | asked, indent=2) + "\n", encoding="utf-8")


def _check(request: Request, output_dir: Path, overwrite: bool) -> None:
    """Refuse contradictions, and to replace an earlier run unasked."""
    if (request.start is None) != (request.end is None):
        raise UsageProblem("expected --from and --to together, got one of them; give both")
    modes = [request.like, request.go_on, request.start]
    if sum(mode is not None for mode in modes) > 1:
        raise UsageProblem(
            "expected one of --like, --continue and --from, got several; run them one by one"
        )
    if request.seconds is not None and (request.like or request.start):
        raise UsageProblem(
            "--seconds: expected none with --like and --from, whose sounds are as long as the "
            "clips; leave it out"
        )
    from pipelines.results import require_new
    from pipelines.sounds_page import page_names

    sounds = (_sound_name(index) for index in range(request.total))
    names = (*sounds, *page_names(_PAGE), _FACTS_NAME)
    require_new(output_dir, names, overwrite, request.sources)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= number <= 2 for number in numbers):
        raise UsageProblem(
            f"--temperature: expected numbers from 0 to 2, got '{text}'; write 0.7, or one for "
            "each level as in 0.6,0.7,0.8,0.8"
        )
    return numbers


def _levels(keep: str, num_levels: int) -> tuple[int, ...]:
    """The levels (0 is the coarsest) that `--keep` names."""
    side, _, count = keep.partition(":")
    if side not in ("coarse", "fine") or not count.isdigit() or int(count) > num_levels:
        raise UsageProblem(
            f"--keep: expected coarse:N or fine:N with N up to {num_levels}, got '{keep}'"
        )
    kept = int(count)
    return tuple(range(kept) if side == "coarse" else range(num_levels - kept, num_levels))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(app, argv, prog_name="python -m pipelines.generate")


if __name__ == "__main__":
    end_process(main())

"""A vector for each clip, and a map of all: `python -m pipelines.embed DIR`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from audiovae.commands import (
    CheckpointOption,
    ExitStatus,
    UsageProblem,
    counted,
    end_process,
    load_for_command,
    one_line,
    run_command,
)
from pipelines.measured import Workforce, input_root, measure_directory, require_apart
from pipelines.options import AllowErrors, Device, Executor, Workers

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
query_app = typer.Typer(
    add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)
_OUTPUT_SUFFIX: Final = "_map"
_VECTORS: Final = "vectors"
_PROG_NAME: Final = "python -m pipelines.embed"

_EXAMPLE = "\n\n".join(
    (
        "[bold]Example:[/bold]  python -m pipelines.embed samples/ --output-dir samples_map",
        "writes [cyan]map.html[/cyan] (a map to see, hear and search), embeddings.parquet and "
        "embeddings.npz. Run it again at any time: only new files are embedded.",
        "[bold]Query:[/bold]  python -m pipelines.embed query samples_map/ clip.wav --top 10",
        "[bold]Exit status:[/bold]  0 all done, 3 some inputs failed, 2 wrong usage, 1 fatal, "
        "130 interrupted.",
    )
)


@app.command(epilog=_EXAMPLE)
def embed(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Audio, with all below it.", show_default=False)
    ],
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Where results go. Default: DIR's name + _map, beside DIR."),
    ] = None,
    sound: Annotated[
        bool | None,
        typer.Option(
            "--embed-sound/--link-sound",
            help="Put the beginning of each clip into the page, or link to the files. Default: "
            "put it in for up to 200 clips.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same map.")] = 0,
    checkpoint: CheckpointOption = "base",
    executor: Executor = "auto",
    workers: Workers = None,
    device: Device = "auto",
    allow_errors: AllowErrors = False,
) -> None:
    """Embed every clip of a directory, and draw a map on which alike sounds lie together."""
    from pipelines.mapping.collection import NPZ_NAME, PARQUET_NAME, collect, save_collection
    from pipelines.mapping.page import PAGE_NAME, MapFacts, write_map_page
    from pipelines.runner.lock import OutputLock, require_ours
    from pipelines.runner.recipe import weights_identity
    from pipelines.runner.storage import LocalStorage
    from pipelines.training_display import CountingDisplay

    root = input_root(directory)
    given = Path(os.path.abspath(directory))
    results = Path(os.path.abspath(output_dir or given.parent / (given.name + _OUTPUT_SUFFIX)))
    require_apart(results, root)
    require_ours(LocalStorage(results), (PAGE_NAME, NPZ_NAME, PARQUET_NAME))
    workforce = Workforce(checkpoint, executor, workers, device)
    status, files = measure_directory(directory, results / _VECTORS, "embedding", workforce)
    with OutputLock(results, root), CountingDisplay("collected") as display:
        weights = weights_identity(checkpoint)
        collection, pictures = collect(files, root, checkpoint, weights, display.show)
        save_collection(collection, results)
        display.write(f"drawing a map of {counted(len(collection), 'clip')}")
        page = write_map_page(results, collection, pictures, MapFacts(given.name, seed, sound))
    sys.stdout.write(f"embedded: {counted(len(collection), 'clip')}\nmap: {one_line(page)}\n")
    failed = status == ExitStatus.FAILED_INPUTS and not allow_errors
    raise typer.Exit(ExitStatus.FAILED_INPUTS if failed else ExitStatus.DONE)


@query_app.command(
    epilog="[bold]Example:[/bold]  python -m pipelines.embed query samples_map/ clip.wav --top 10"
)
def query(
    output_dir: Annotated[
        Path, typer.Argument(metavar="OUT", help="What embed has written.", show_default=False)
    ],
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="Audio of any kind.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many to name.")] = 10,
    device: Device = "auto",
) -> None:
    """Name the clips of a collection that sound most like another one.

    A line each, nearest first: distance, path and class, with tabs between.
    """
    from audiovae.analysis.embedding import nearest
    from audiovae.measuring import Measurer, build_measurement
    from audiovae.sources import probe_source
    from pipelines.mapping.collection import load_collection
    from pipelines.runner.local import resolve_device
    from pipelines.runner.recipe import weights_identity

    collection = load_collection(output_dir)
    probe_source(clip)  # a wrong path is known before the model is loaded
    if weights_identity(collection.checkpoint) != collection.weights:
        raise UsageProblem(
            f"expected the model that embedded '{output_dir}', got other weights for "
            f"{collection.checkpoint}; run embed again"
        )
    model = load_for_command(collection.checkpoint, resolve_device(device))
    measured = Measurer(model, build_measurement("embedding", model)).measure_file(clip)
    found, distances = nearest(collection.vectors, measured["embedding"][None], top)
    for place_of, distance in zip(found[0].tolist(), distances[0].tolist(), strict=True):
        name, label = collection.names[place_of], collection.labels[place_of]
        sys.stdout.write(f"{distance:.3f}\t{one_line(name)}\t{one_line(label)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; `query` as first word asks a collection."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["query"]:
        return run_command(query_app, arguments[1:], prog_name=f"{_PROG_NAME} query")
    return run_command(app, arguments, prog_name=_PROG_NAME)


if __name__ == "__main__":
    end_process(main())

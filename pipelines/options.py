"""Options that several commands share: where the work is done, and what a failure means."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Executor = Annotated[
    Literal["auto", "local", "ray"],
    typer.Option(
        help="Where to work; local: threads of this process; ray: processes on this machine, or "
        "the cluster that RAY_ADDRESS names."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Workers. Default: one for each available core, also of a cluster.",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")
]
AllowErrors = Annotated[
    bool, typer.Option("--allow-errors", help="Exit with 0 even if some inputs failed.")
]

"""How every command of the project ends: exit statuses, and one line for what went wrong."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from audiovae.errors import AudioVAEError

if TYPE_CHECKING:
    from audiovae.checkpoint import Model

# Options that more than one command has, so that they mean and say the same everywhere.
QualityOption = Annotated[
    int, typer.Option(min=1, max=8, help="1 (fewest bits) to 8 (closest to the source).")
]
KbpsOption = Annotated[
    float | None,
    typer.Option(min=0.01, max=1e6, help="Rate of all bytes of a file, in place of a quality."),
]
MaxBytesOption = Annotated[
    int | None, typer.Option(min=1, help="Limit of a file's size, in place of a quality.")
]
PolishOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=64,
        help="Steps that better the phase of the sound: each costs time, the first help most.",
    ),
]
CheckpointOption = Annotated[
    str, typer.Option(help="Name of a model, its file, or the folder of a training run.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")]

# The base of what Typer raises for a wrong command line; its home differs between versions.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def amount_option(help: str, *, show_default: bool = True) -> Any:
    """An option for how far a timbre moves, within far more than makes sense to hear."""
    return typer.Option(min=-100, max=100, callback=_no_nan, help=help, show_default=show_default)


def _no_nan(value: float | None) -> float | None:
    """Refuse "nan", which the command line takes for a number and no range keeps out."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("expected a number, got nan")
    return value


class ExitStatus(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FATAL = 1
    USAGE = 2
    FAILED_INPUTS = 3
    INTERRUPTED = 130


class UsageProblem(AudioVAEError):
    """The command line asks for something that cannot be; exit status 2."""


class Interrupted(AudioVAEError):
    """The user or the system asked the command to stop; exit status 130."""


def one_line(text: object) -> str:
    """`text` on one printable line: control characters and undecodable bytes are escaped."""
    joined = " ".join(str(text).split())
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in joined
    )


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "channel"), counted(2, "channel")
    ('1 channel', '2 channels')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def complain(message: object) -> None:
    """Write one line about a problem to standard error."""
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.stderr.flush()


def load_for_command(name: str, device: str) -> Model:
    """Load a model to use it on one thread: a short file gains nothing from more.

    Raises:
        UsageProblem: If this machine has no such device.
    """
    import torch

    from audiovae.checkpoint import load_model

    kind, _, number = device.partition(":")
    usable = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu")
    is_number = number.isascii() and number.isdecimal()
    if is_number != (":" in device) or int(number or 0) >= usable:
        raise UsageProblem(
            f"--device: expected cpu, or cuda where PyTorch finds a GPU, got {device}, which is "
            "not here; leave --device out"
        )
    torch.set_num_threads(1)
    return load_model(name, device)


def refuse_given(context: typer.Context, names: Sequence[str], where: str) -> None:
    """Refuse options on the command line that would change nothing.

    Args:
        context: Of the command.
        names: Parameters of the command.
        where: Where they have a meaning, and what to do: ends the message.

    Raises:
        UsageProblem: If one was given.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageProblem(f"--{name.replace('_', '-')}: expected it {where}")


def refuse_idle_quality(context: typer.Context, kbps: float | None, max_bytes: int | None) -> None:
    """Refuse a quality beside a size, which takes its place.

    Raises:
        UsageProblem: If both were given.
    """
    if kbps is not None or max_bytes is not None:
        refuse_given(context, ("quality",), "without --kbps and --max-bytes; leave one out")


def require_new(destination: Path, overwrite: bool, *inputs: str | Path) -> None:
    """Refuse an output that cannot be, before anything is computed for it.

    Args:
        destination: Where a file shall appear.
        overwrite: Whether it may replace one.
        inputs: What the command reads; these are never written to.

    Raises:
        UsageProblem: If it exists and may not be replaced, is an input, or has no folder.
    """
    if destination.is_dir():
        raise UsageProblem(f"OUT: expected a file, got {destination}, a folder; add a name to it")
    if is_input(destination, *inputs):
        raise UsageProblem(
            f"OUT: expected another file than the input, got {destination}; inputs are never "
            "written to: choose another name"
        )
    if destination.exists() and not overwrite:
        raise UsageProblem(
            f"OUT: expected a new file, got {destination}, which exists; "
            "choose another name or add --overwrite"
        )
    if not destination.parent.is_dir():
        raise UsageProblem(
            f"OUT: expected a name in an existing folder, got {destination}; "
            f"make {destination.parent} first"
        )


def require_new_audio(destination: Path, overwrite: bool, *inputs: str | Path) -> None:
    """As `require_new`, of a file of sound.

    Raises:
        UsageProblem: Also if its name says no format that is written.
    """
    from audiovae.audio import format_of_name

    try:
        format_of_name(destination)
    except AudioVAEError as problem:
        raise UsageProblem(f"OUT: {problem}") from None
    require_new(destination, overwrite, *inputs)


def is_input(destination: Path, *inputs: str | Path) -> bool:
    """Whether a file that exists is one of the inputs, or lies in a directory that is one."""
    if not destination.exists():
        return False
    sources = [Path(one) for one in inputs if Path(one).exists()]
    return any(
        destination.samefile(one) or one.resolve() in destination.resolve().parents
        for one in sources
    )


def run_command(app: typer.Typer, argv: Sequence[str] | None, prog_name: str) -> ExitStatus | int:
    """Run a Typer app and turn whatever ends it into an exit status and at most one line."""
    # A service may start a command with closed streams, which Python makes None.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    try:
        arguments = [_argument(word) for word in (sys.argv[1:] if argv is None else argv)]
        with _ended_like_an_interrupt():
            status = app(args=arguments, prog_name=prog_name, standalone_mode=False)
        if status == ExitStatus.INTERRUPTED:  # Typer took the KeyboardInterrupt
            raise typer.Abort
    except UsageProblem as problem:
        complain(problem)
        return ExitStatus.USAGE
    except (Interrupted, KeyboardInterrupt, typer.Abort) as problem:
        if isinstance(problem.__cause__, EOFError):  # Typer takes a file that is cut short for ^D
            raise problem.__cause__ from None
        complain(str(problem) or "stopped; run the same command again to continue")
        return ExitStatus.INTERRUPTED
    except (AudioVAEError, OSError) as problem:
        logging.getLogger(__name__).debug("fatal", exc_info=problem)
        complain(_explained(problem))
        return ExitStatus.FATAL
    except _CommandLineError as problem:
        explained = getattr(problem, "format_message", problem.__str__)().rstrip(".")
        if explained:  # nothing to say where the help was shown for want of a command
            context = getattr(problem, "ctx", None)
            complain(f"{explained}; see {context.command_path if context else prog_name} --help")
        return ExitStatus.USAGE
    return status if isinstance(status, int) else ExitStatus.DONE


def _explained(problem: AudioVAEError | OSError) -> object:
    """What to say of a problem; what the system says of a file lacks what to do."""
    if isinstance(problem, AudioVAEError) or not problem.filename:
        return problem
    place = problem.filename2 or problem.filename  # of a draft, the name that it was to take
    if isinstance(problem, IsADirectoryError):
        what = f"{place}: expected a file, got a folder; move it away"
    else:
        what = f"{problem.strerror}: {place}; mend that"
    return f"{what} and run the same command again"


def _argument(word: str) -> str:
    """An argument with its `~` made a path, which a shell leaves alone in `--option=~/x`.

    Raises:
        UsageProblem: If it is empty, as "$UNSET" is; a path would then be the current directory.
    """
    option, separator, value = word.partition("=")
    is_option = bool(separator) and option.startswith("--")
    if not (value if is_option else word):
        where = option if is_option else "the command line"
        raise UsageProblem(
            f"{where}: expected a value, got an empty one; is a variable of the shell not set?"
        )
    return f"{option}={os.path.expanduser(value)}" if is_option else os.path.expanduser(word)


@contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    """SIGTERM is Ctrl-C, unless a command asks for something gentler (`StopRequest`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def end_process(status: int) -> NoReturn:
    """Leave with `status`, even if a dropped unit still occupies a worker thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the status is settled
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.daemon and thread.is_alive() for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)

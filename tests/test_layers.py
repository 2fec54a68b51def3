"""The house keeps its shape: imports run downwards only, and importing changes nothing.

Layers are read from the import statements with `ast`, wherever they stand (at the top, in a
function, under `TYPE_CHECKING`). Modules of one layer may import each other; none may import
from a layer above its own.
"""

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from audiovae.config import load_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
MAX_CONFIG_LINES = 20

# Top to bottom: every module of `audiovae/` has its place here. `__init__` is the front
# door, `import audiovae`: what lies below it must not import through it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("pipelines",),
    ("__main__",),
    ("cli", "commands"),
    ("__init__",),
    (
        "transform",
        "files",
        "sources",
        "parts",
        "inspection",
        "compressed",
        "rate",
        "reports",
        "reconstruct",
        "rows",
        "clips",
        "morph",
        "stretches",
        "measuring",
        "generation",
    ),
    (
        "training",
        "analysis",
        "pitch",
        "codec",
        "arithmetic",
        "sampling",
        "timbre",
        "synthesis",
        "limiter",
    ),
    ("checkpoint",),
    ("models", "objectives"),
    (
        "spectrogram",
        "audio",
        "chunks",
        "gains",
        "coherence",
        "latents",
        "labels",
        "pretrained",
    ),
    ("config", "config_base", "config_reading", "config_vae", "errors", "replacing"),
)


def height_of(part: str) -> int:
    """Height of a part of the house: 0 is the ground, larger numbers lie above."""
    for depth, patterns in enumerate(LAYERS):
        if any(fnmatchcase(part, pattern) for pattern in patterns):
            return len(LAYERS) - 1 - depth
    pytest.fail(f"audiovae/{part} has no layer: add it to LAYERS in tests/test_layers.py")


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    """`audiovae/codec/coder.py` is `audiovae.codec.coder`; a folder's `__init__` is the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str | None:
    """The part of our house that a dotted module name belongs to, None for third parties."""
    package, _, inner = module.partition(".")
    if package == "pipelines":
        return "pipelines"
    if package != "audiovae":
        return None
    return inner.split(".")[0] or "__init__"


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module that `source` imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = module.split(".")
                ancestors = ancestors[: len(ancestors) - node.level + is_package]
                base = ".".join([*ancestors, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if is_module(inner) else base


def imports_in(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text(encoding="utf-8")
    return imports_of(source, module_of(path), is_package=path.name == "__init__.py")


def upward_imports(module: str, imports: Iterator[tuple[int, str]]) -> list[str]:
    own_part = part_of(module)
    assert own_part is not None
    found = []
    for line, imported in imports:
        part = part_of(imported)
        if part is not None and height_of(part) > height_of(own_part):
            found.append(f"{module}, line {line}: imports {imported}, which lies above it")
    return found


@pytest.mark.parametrize(
    "path",
    [*python_files("audiovae"), *python_files("pipelines")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_run_downwards(path: Path) -> None:
    assert upward_imports(module_of(path), imports_in(path)) == []


@pytest.mark.parametrize(
    ("module", "statement", "upwards"),
    [
        ("audiovae.config", "from audiovae.models.hvae import HVAE", True),
        ("audiovae.codec.coder", "from audiovae import cli", True),
        ("audiovae.codec.coder", "from audiovae import load_model", True),
        ("audiovae.codec.coder", "import pipelines.runner", True),
        ("audiovae.codec.coder", "def f():\n    from ..cli import main", True),
        ("audiovae.cli", "from audiovae import load_model", False),
        ("audiovae.codec.coder", "from audiovae import config", False),
        ("audiovae.codec.coder", "from audiovae.synthesis import Vocoder", False),
        ("audiovae.codec.coder", "import torch\nfrom .symbols import round_half", False),
        ("pipelines.train", "from audiovae.training import loop", False),
    ],
)
def test_the_check_itself(module: str, statement: str, upwards: bool) -> None:
    assert bool(upward_imports(module, imports_of(statement, module))) is upwards


def test_an_unknown_module_is_reported() -> None:
    with pytest.raises(pytest.fail.Exception, match="has no layer: add it to LAYERS"):
        height_of("surprise")


def test_the_library_never_imports_ray() -> None:
    found = [
        f"{module_of(path)}, line {line}"
        for path in python_files("audiovae")
        for line, imported in imports_in(path)
        if imported.split(".")[0] == "ray"
    ]
    assert found == []


def test_pipelines_do_no_signal_processing() -> None:
    banned = {"librosa", "scipy", "soundfile", "soxr", "torchaudio", "av"}
    found = [
        f"{module_of(path)}, line {line}: {imported}"
        for path in python_files("pipelines")
        for line, imported in imports_in(path)
        if imported.split(".")[0] in banned
    ]
    assert found == []


# Runs in a process of its own. Python's audit events see every file that is opened for writing,
# made, renamed or removed, wherever it lies, and every connection.
PROBE = """
import json, logging, os, sys

events = []
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        if arguments[0] != os.devnull:
            events.append(f"opened for writing: {arguments[0]}")
    elif event in CHANGES or event == "socket.connect":
        events.append(f"{event}: {arguments[:1]}")

sys.addaudithook(watch)
import audiovae

changes = list(events)
print(json.dumps({
    "changes": changes,
    "ray": "ray" in sys.modules,
    "handlers": [repr(handler) for handler in logging.getLogger().handlers],
    "own_handlers": [repr(handler) for handler in logging.getLogger("audiovae").handlers
                     if not isinstance(handler, logging.NullHandler)],
}))
"""


def test_importing_the_library_changes_nothing(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {
        "changes": [],
        "ray": False,
        "handlers": [],
        "own_handlers": [],
    }
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


def model_config_paths() -> list[Path]:
    """Configs of models; those of clusters belong to Ray."""
    return sorted(
        path for path in CONFIGS.rglob("*.toml") if not {"cluster", "recipes"} & set(path.parts)
    )


@pytest.mark.parametrize(
    "path", model_config_paths(), ids=lambda path: str(path.relative_to(CONFIGS))
)
def test_every_config_is_valid_and_short(path: Path) -> None:
    load_config(path)
    if path == CONFIGS / "base.toml":
        return
    text = path.read_text(encoding="utf-8")
    assert "extends" in tomllib.loads(text), "only configs/base.toml stands alone"
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= MAX_CONFIG_LINES, f"{len(lines)} lines; move what is shared to base.toml"

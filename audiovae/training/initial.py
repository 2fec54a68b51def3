"""Weights to start from: those that ship, or those of another run, wherever it was made.

A model file holds its weights in half precision and nothing of the optimiser: the moments are
warmed up again. That is what lets short runs on several machines add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from audiovae.checkpoint import Checkpoint, Provenance, fill, load_checkpoint
from audiovae.config import ModelConfig
from audiovae.errors import CheckpointError, ConfigError
from audiovae.pretrained import RUN_MODELS, find_checkpoint

VOCODER_NAME = "vocoder.safetensors"
DISCRIMINATORS_NAME = "discriminators.safetensors"
_NAMES = (*RUN_MODELS, VOCODER_NAME, DISCRIMINATORS_NAME)
_TABLES = {
    "vae": ("spectrogram", "vae", "bottleneck", "quality", "timbre", "label", "pitch"),
    "vocoder": ("spectrogram", "vocoder"),
    "discriminators": ("discriminators",),
}
"""Tables of a config that are settled by the weights of each kind of network."""
_NEEDED = {
    "vae": ("vae",),
    "timbre": ("vae",),
    "vocoder": ("vocoder",),
    "adversarial": ("vae", "vocoder"),
}


@dataclass(frozen=True)
class InitialWeights:
    """Checkpoints to start from, and what they are.

    Attributes:
        checkpoints: By kind of network: vae, vocoder, discriminators.
        source: How they were asked for.
    """

    checkpoints: Mapping[str, Checkpoint]
    source: str

    def passed_on(self, provenance: Provenance, kind: str) -> Provenance:
        """The provenance of a run of `kind` that goes on from these: what made these made it too.

        What merely lies beside them, as the vocoder beside a VAE, has no part in it.
        """
        taken = {name: c for name, c in self.checkpoints.items() if name in _taken(kind)}
        before = [checkpoint.provenance for checkpoint in taken.values()]
        steps = [f"{name} of {c.provenance.steps} steps" for name, c in taken.items()]
        data = "; ".join(dict.fromkeys(one.data for one in before))
        licences = dict.fromkeys([provenance.licence, *(one.licence for one in before)])
        return replace(
            provenance,
            data=f"{provenance.data}; started from {', '.join(steps)}, trained on: {data}",
            licence="; ".join(filter(None, licences)),
        )

    def adopted(self, config: ModelConfig) -> ModelConfig:
        """A config with the sizes of these weights, which win over its own.

        Raises:
            ConfigError: If weights that its kind needs are missing, or do not fit together.
        """
        needed = _NEEDED.get(config.kind, ())
        missing = [kind for kind in needed if kind not in self.checkpoints]
        if missing or not needed:
            raise ConfigError(
                f"--init {self.source}: expected weights to start kind '{config.kind}' from, found "
                f"no {' and no '.join(missing) or 'way to'}; name a model file, a directory of "
                "one, or a shipped model, more than once if need be"
            )
        if config.kind == "timbre" and self.checkpoints["vae"].config.timbre is None:
            raise ConfigError(
                f"--init {self.source}: expected weights with a timbre code to start kind 'timbre' "
                "from, got some without; --init timbre takes those that ship"
            )
        tables: dict[str, object] = {}
        for kind in (kind for kind in _taken(config.kind) if kind in self.checkpoints):
            for name in _TABLES[kind]:
                value = getattr(self.checkpoints[kind].config, name)
                if tables.setdefault(name, value) != value:
                    raise ConfigError(
                        f"--init {self.source}: expected weights of one [{name}] table, got two; "
                        "train them on the same"
                    )
        return config.model_copy(update=tables)

    def fill(self, networks: Mapping[str, nn.Module]) -> None:
        """Load the weights of each of these networks that there are weights of."""
        for kind, network in networks.items():
            if kind in self.checkpoints:
                fill(network, self.checkpoints[kind], kind, self.source)


def _taken(kind: str) -> tuple[str, ...]:
    """Kinds of networks that a run of `kind` goes on from, as far as there are any."""
    needed = _NEEDED.get(kind, ())
    return (*needed, "discriminators") if "vocoder" in needed else needed


def initial_weights(sources: Sequence[str | Path]) -> InitialWeights:
    """Find weights by shipped name, model file or directory; the first of a kind is taken.

    Beside a model file its companions count too: a vocoder beside a VAE, and discriminators.

    Raises:
        CheckpointError: If there is nothing there, or it cannot be used.
    """
    checkpoints: dict[str, Checkpoint] = {}
    for source in sources:
        paths = list(_files(source))
        if not paths:
            raise CheckpointError(
                f"{source}: expected a directory with a model file ({', '.join(_NAMES[:3])}), "
                "found none; check the path"
            )
        for path in paths:
            checkpoint = load_checkpoint(path)
            checkpoints.setdefault(checkpoint.kind, checkpoint)
    return InitialWeights(checkpoints, ", ".join(str(source) for source in sources))


def _files(source: str | Path) -> Iterator[Path]:
    directory = Path(source)
    names: Sequence[str] = _NAMES
    if not directory.is_dir():
        path = find_checkpoint(source)
        yield path
        directory, names = path.parent, _NAMES[2:]
    yield from (directory / name for name in names if (directory / name).is_file())

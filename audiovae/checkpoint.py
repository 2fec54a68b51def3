"""Model files: one safetensors file with its config and provenance inside.

The metadata holds `format`, `format_version`, `kind` (vae, vocoder or discriminators), and as
JSON `config`, `provenance` and `quality_scale`. Matrices are stored as float16 and computed with
as float32. Nothing in a model file is executed: pickles are refused by name.

The file of a VAE that is coded (bottleneck quantized or vq) also holds the frequency table of its
entropy coder, as integers under `codec.`; that of an adapted one, under `normality.`, the network
that tells normal sounds from disturbed. A model's identity is the hash of its VAE's tensors, of its
table and of the settings that shape the computation; a compressed file names it, and only the
model of that identity decodes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from audiovae.config import ModelConfig, parse_config
from audiovae.errors import CheckpointError
from audiovae.models.bottlenecks import SymbolTable, build_table, read_table
from audiovae.models.discriminators import Discriminators
from audiovae.models.hvae import HVAE
from audiovae.models.identity import CODEC_PREFIX, model_id
from audiovae.models.normality import NORMALITY_PREFIX, NormalityClassifier
from audiovae.models.vocoder import Vocoder
from audiovae.pretrained import OWN_VOCODER, VOCODER, find_checkpoint, find_vocoder
from audiovae.replacing import replacing

_FORMAT = "audiovae"
_FORMAT_VERSION = 1
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"})
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Provenance:
    """Where weights come from: everything needed to judge or repeat them."""

    audiovae_version: str = ""
    data: str = ""
    licence: str = ""
    seed: int = 0
    steps: int = 0
    minutes: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    def after(self, steps: int, seconds: float, metrics: dict[str, float]) -> Provenance:
        """The same origin, further trained."""
        rounded = {name: round(value, 5) for name, value in metrics.items()}
        return replace(self, steps=steps, minutes=round(seconds / 60, 2), metrics=rounded)


@dataclass(frozen=True)
class QualityPoint:
    """One step of the quality scale, with the rate and distortion measured at training's end."""

    quality: int
    log_lambda: float
    kbps: float
    log_mel_l1_db: float


@dataclass(frozen=True)
class Checkpoint:
    """A model file's content."""

    kind: str
    config: ModelConfig
    provenance: Provenance
    quality_scale: tuple[QualityPoint, ...]
    tensors: dict[str, Tensor]

    @property
    def frequency_table(self) -> SymbolTable | None:
        """The entropy coder's table; None for a bottleneck that is not coded.

        Raises:
            CheckpointError: If the stored table is damaged.
        """
        if self.kind != "vae":
            return None
        stored_table = {
            name.removeprefix(CODEC_PREFIX): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(CODEC_PREFIX)
        }
        if not stored_table and self.config.bottleneck.kind == "quantized":
            # Written by a training run before files held the table.
            return build_table(self.config.bottleneck, ())
        return read_table(self.config.bottleneck, stored_table)


@dataclass(frozen=True)
class Model:
    """Everything that turns audio into latents and back.

    Attributes:
        name: How it was asked for.
        id: Identity of the VAE's weights, 16 hexadecimal characters.
        config: The VAE's configuration.
        vae: The hierarchical VAE, in evaluation mode.
        vocoder: Log-mel to waveform, or None: Griffin-Lim is used.
        quality_scale: What `quality` means for this model; empty if it has no such conditioning.
        provenance: Of the VAE.
        frequency_table: What the entropy coder codes symbols with; None for a bottleneck that
            makes no compressed files.
        normality: What tells normal sounds from disturbed; None unless the model was adapted.
    """

    name: str
    id: str
    config: ModelConfig
    vae: HVAE
    vocoder: Vocoder | None
    quality_scale: tuple[QualityPoint, ...]
    provenance: Provenance
    frequency_table: SymbolTable | None = None
    normality: NormalityClassifier | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vae.mel_mean.device


def save_vae(
    path: Path,
    model: HVAE,
    provenance: Provenance,
    quality_scale: tuple[QualityPoint, ...],
    normality: NormalityClassifier | None = None,
) -> None:
    """Write a VAE atomically, with its entropy coder's table and what else goes with it."""
    built = build_table(model.config.bottleneck, model.bottlenecks())
    tensors = {} if built is None else built.tensors()
    more = {CODEC_PREFIX + name: tensor for name, tensor in tensors.items()}
    if normality is not None:
        for name, tensor in normality.state_dict().items():
            more[NORMALITY_PREFIX + name] = stored(tensor)
    _save(path, "vae", model.config, model, provenance, quality_scale, more)


def save_vocoder(path: Path, vocoder: Vocoder, config: ModelConfig, provenance: Provenance) -> None:
    """Write a vocoder atomically."""
    _save(path, "vocoder", config, vocoder, provenance, ())


def save_discriminators(
    path: Path, network: Discriminators, config: ModelConfig, provenance: Provenance
) -> None:
    """Write discriminators atomically: no sound needs them, but further training does."""
    _save(path, "discriminators", config, network, provenance, ())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a model file.

    Raises:
        CheckpointError: If the file is missing, a pickle, damaged, or of another project or a
            newer version.
    """
    _refuse_pickle(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected a whole safetensors model file, got a damaged or foreign one "
            f"({error}); copy or train it again"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: expected a model file of audiovae, got safetensors of another origin; "
            "train one with python -m pipelines.train"
        )
    version = metadata.get("format_version", "")
    if version != str(_FORMAT_VERSION):
        raise CheckpointError(
            f"{path}: expected model file version {_FORMAT_VERSION}, got {version}; "
            "use the audiovae that wrote it, or a newer one"
        )
    try:
        return Checkpoint(
            kind=metadata["kind"],
            config=parse_config(json.loads(metadata["config"]), source=str(path)),
            provenance=Provenance(**json.loads(metadata["provenance"])),
            quality_scale=tuple(QualityPoint(**p) for p in json.loads(metadata["quality_scale"])),
            tensors=tensors,
        )
    except (KeyError, TypeError, ValueError) as error:  # facts that this version does not know
        raise CheckpointError(
            f"{path}: expected the facts of a model file, got others ({error}); "
            "use the audiovae that wrote it, or a newer one"
        ) from None


def load_model(
    name: str | Path = "base", device: str = "cpu", vocoder: str | Path | None = OWN_VOCODER
) -> Model:
    """Load a VAE and the vocoder that sounds it.

    Args:
        name: A shipped model's name, or the path of a model file.
        device: Where to put the weights.
        vocoder: The same for the vocoder; None for Griffin-Lim. As it is, the one that was trained
            with the model and lies beside its file, or else the shipped one.

    Raises:
        CheckpointError: If there is no such model, or its file cannot be used, or model and
            vocoder are of different spectrograms.
    """
    checkpoint = load_checkpoint(find_checkpoint(name))
    vae = load_vae(checkpoint, source=str(name)).to(device)
    sound = None if vocoder is None else load_vocoder(find_vocoder(name, vocoder)).to(device)
    if sound is not None and sound.spectrogram != checkpoint.config.spectrogram:
        raise CheckpointError(
            f"{name}: expected a model and a vocoder of one spectrogram, got "
            f"{checkpoint.config.spectrogram} and {sound.spectrogram}; put the vocoder that was "
            "trained for it beside the model file, as vocoder.safetensors"
        )
    table = checkpoint.frequency_table
    normality = load_normality(checkpoint, source=str(name))
    return Model(
        name=str(name),
        id=model_id(vae, checkpoint.config, table),
        config=checkpoint.config,
        vae=vae,
        vocoder=sound,
        quality_scale=checkpoint.quality_scale,
        provenance=checkpoint.provenance,
        frequency_table=table,
        normality=None if normality is None else normality.to(device),
    )


def load_vae(checkpoint: Checkpoint, source: str) -> HVAE:
    """The VAE of a checkpoint, in evaluation mode."""
    vae = fill(HVAE(checkpoint.config), checkpoint, "vae", source)
    return vae.eval().requires_grad_(False)


def load_normality(checkpoint: Checkpoint, source: str) -> NormalityClassifier | None:
    """The network that an adapted model has beside its VAE, in evaluation mode."""
    tensors = {
        name.removeprefix(NORMALITY_PREFIX): tensor.float()
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(NORMALITY_PREFIX)
    }
    if not tensors:
        return None
    network = NormalityClassifier(checkpoint.config.spectrogram.num_mels)
    return _loaded(network, tensors, source).eval().requires_grad_(False)


def load_vocoder(name: str | Path = VOCODER) -> Vocoder:
    """The vocoder of that name or path, in evaluation mode."""
    checkpoint = load_checkpoint(find_checkpoint(name))
    network = Vocoder(checkpoint.config.vocoder, checkpoint.config.spectrogram)
    return fill(network, checkpoint, "vocoder", str(name)).eval().requires_grad_(False)


def fill(network: _Network, checkpoint: Checkpoint, kind: str, source: str) -> _Network:
    """Load a checkpoint's weights into a network built by the checkpoint's own config.

    Raises:
        CheckpointError: If the checkpoint is of another kind or shape.
    """
    if checkpoint.kind != kind:
        raise CheckpointError(f"{source}: expected a {kind}, got a {checkpoint.kind}")
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith((CODEC_PREFIX, NORMALITY_PREFIX))
    }
    return _loaded(network, tensors, source)


def _loaded(network: _Network, tensors: dict[str, Tensor], source: str) -> _Network:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{source}: expected the weights its own config describes, got others: {reason}"
        ) from None
    return network


def stored(tensor: Tensor) -> Tensor:
    """How a tensor is stored: matrices as float16, vectors (norms, statistics) as they are."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _save(
    path: Path,
    kind: str,
    config: ModelConfig,
    network: nn.Module,
    provenance: Provenance,
    quality_scale: tuple[QualityPoint, ...],
    more: dict[str, Tensor] | None = None,
) -> None:
    metadata = {
        "format": _FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "kind": kind,
        "config": config.model_dump_json(),
        "provenance": json.dumps(asdict(provenance)),
        "quality_scale": json.dumps([asdict(point) for point in quality_scale]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: stored(tensor) for name, tensor in network.state_dict().items()}
    tensors.update(more or {})
    # Through bytes: save_file() makes files that only their owner can read.
    with replacing(path) as draft:
        draft.write_bytes(save(tensors, metadata=metadata))


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(
            f"{path}: expected a model file, got {error.strerror or error}; check the path"
        ) from None
    if path.suffix.lower() in _PICKLE_SUFFIXES or start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise CheckpointError(
            f"{path}: expected safetensors, got a pickle, which can run code when it is read; "
            "export the model with this project's training instead"
        )

"""The table of the VAE family: `python -m pipelines.evaluate --family RUNS --data DIR`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import typer

from audiovae.analysis.sample_quality import (
    Features,
    cepstral_features,
    frechet_distance,
    nearest_distances,
)
from audiovae.audio import Clip, mixed_to_mono, read_audio
from audiovae.commands import Interrupted, UsageProblem, complain
from audiovae.config import SpectrogramConfig
from audiovae.errors import AudioReadError
from audiovae.pretrained import MODEL_NAME, find_checkpoint
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.decoding import audio_paths
from audiovae.training.shard_index import is_shards
from audiovae.training.shards import load_shards
from pipelines.evaluation.clips import find_clips
from pipelines.evaluation.family_bench import Figures, Material, Member
from pipelines.evaluation.family_inputs import Sound
from pipelines.evaluation.family_request import FamilyRequest
from pipelines.evaluation.family_tables import FamilyRow, csv_text, report, tables
from pipelines.evaluation.notes import RenderedNotes, render_notes
from pipelines.training_display import CountingDisplay

OUTPUTS: Final = ("family.csv", "family.md")
_MAX_SECONDS: Final = 10.0  # a chunk holds 11.9 s
_MAX_TRAINING_FILES: Final = 1000


def evaluate_family(
    request: FamilyRequest, is_stopped: Callable[[], bool]
) -> tuple[str, dict[str, bytes], int]:
    """Measure every member.

    Returns:
        The tables as text, the files to write, and how many clips could not be read.

    Raises:
        UsageProblem: If a member is not there.
        Interrupted: If the user asked to stop.
    """
    paths = find_members(request.members)
    config = SpectrogramConfig()
    sounds, failed = _sounds(request, config)
    training = _training_features(request.train_data, config)
    material = Material(sounds, training, _notes(request.soundfont, config), request.num_samples)
    rows = []
    for name, path in paths.items():
        member = Member(path, material)
        figures: Figures = {}
        for part, values in member.measure():
            figures |= values
            typer.echo(f"model={name} measured={part}")
            if is_stopped():
                raise Interrupted("stopped; nothing was written")
        rows.append(FamilyRow.of(name, member, figures))
    facts = _facts(request, sounds, training)
    contents = {"family.csv": csv_text(rows).encode(), "family.md": report(rows, facts).encode()}
    return tables(rows), contents, failed


def find_members(members: Sequence[str]) -> dict[str, Path]:
    """Model files by the name of their run.

    Raises:
        UsageProblem: If there is none, or two have one name.
    """
    found: dict[str, Path] = {}
    for member in members:
        folder = Path(member)
        runs = [folder / MODEL_NAME, *sorted(folder.glob(f"*/{MODEL_NAME}"))]
        paths = [path for path in runs if path.is_file()]
        if not folder.is_dir():
            paths = [find_checkpoint(member)]
        if not paths:
            raise UsageProblem(
                f"--family: expected a run, or a folder of runs, with {MODEL_NAME}, got '{member}'"
            )
        for path in paths:
            name = path.resolve().parent.name if path.name == MODEL_NAME else path.stem
            if name in found:
                raise UsageProblem(f"--family: expected runs of different names, got two '{name}'")
            found[name] = path
    return found


def _sounds(request: FamilyRequest, config: SpectrogramConfig) -> tuple[list[Sound], int]:
    """Every clip of the data, and how many could not be read."""
    files, sounds = find_clips(request.data), []
    for file in files:
        try:
            clip = _read(file.path, min(request.max_seconds, _MAX_SECONDS), config)
        except AudioReadError as error:
            complain(error)
            continue
        log_mel = log_mel_spectrogram(torch.from_numpy(clip.waveform), config)[0]
        sounds.append(Sound(clip, log_mel, file.kind))
    if len(sounds) < 2:
        raise UsageProblem(f"--data: expected at least 2 clips, got {len(sounds)}")
    return sounds, len(files) - len(sounds)


def _read(path: Path, seconds: float, config: SpectrogramConfig) -> Clip:
    """The beginning of a file, mono, at the models' rate."""
    clip = read_audio(path, duration_seconds=seconds, sample_rate=config.sample_rate)
    return Clip(mixed_to_mono(clip.waveform), config.sample_rate)


def _training_features(source: Path | None, config: SpectrogramConfig) -> Features | None:
    """Features of training recordings; of a thousand files if there are more."""
    if source is None:
        return None
    if is_shards(source):
        corpus = load_shards(source, config)
        step = -(-len(corpus.names) // _MAX_TRAINING_FILES)
        chosen = range(0, len(corpus.names), step)
        return np.concatenate([cepstral_features(corpus.clip(i).float().T) for i in chosen])
    paths = audio_paths(source)
    paths = paths[:: -(-len(paths) // _MAX_TRAINING_FILES)]
    features = []
    with CountingDisplay("training_files") as display:
        for done, path in enumerate(paths, start=1):
            clip = _read(path, _MAX_SECONDS, config)
            log_mel = log_mel_spectrogram(torch.from_numpy(clip.waveform), config)[0]
            features.append(cepstral_features(log_mel))
            display.show(done, len(paths))
    return np.concatenate(features)


def _notes(soundfont: Path | None, config: SpectrogramConfig) -> RenderedNotes | None:
    if soundfont is None:
        return None
    with CountingDisplay("notes") as display:
        return render_notes(soundfont, config, display.show)


def _facts(request: FamilyRequest, sounds: Sequence[Sound], training: Features | None) -> list[str]:
    """What a reader needs to judge the figures, and what the distances are for recordings."""
    held_back = np.concatenate([cepstral_features(sound.log_mel) for sound in sounds])
    seconds = sum(sound.clip.duration_seconds for sound in sounds)
    facts = [
        f"measured on {len(sounds)} clips, {seconds:.0f} s, that none of the runs has trained on",
        f"{request.num_samples} samples of each prior at temperature 1; classes in turn where a "
        "model has them",
    ]
    if training is None:
        return facts
    frechet = frechet_distance(training, held_back)
    nearest = float(nearest_distances(held_back, training).mean())
    return [
        *facts,
        f"the clips themselves against training recordings: Frechet distance {frechet:.1f}, "
        f"nearest training window {nearest:.3f}",
    ]

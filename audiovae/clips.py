"""Clips to latents and back: where arithmetic on sounds in memory begins and ends.

    latents = audiovae.encode(clip, model)
    moved = audiovae.transfer(latents, audiovae.encode(target, model), 0.5)
    moved_clip = audiovae.decode(moved, model, like=clip)

Latents of a clip have one row a chunk, channel by channel, padded to the longest chunk. They are
computed in the batches that files are, so a decode of what was encoded is the resynthesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from audiovae.audio import Clip, resample
from audiovae.checkpoint import Model
from audiovae.chunks import (
    BATCH_FRAMES,
    batch_rows,
    batches_by_shape,
    chunk_range,
    padded_frames,
    stitch,
)
from audiovae.compressed import quality_lambda
from audiovae.errors import ShapeError
from audiovae.latents import Conditions, Latents, join_latents
from audiovae.reconstruct import Reconstructor
from audiovae.rows import Row, chunk_rows, stack_rows
from audiovae.stretches import (
    Coding,
    Signal,
    Stopwatch,
    Stretch,
    channel_of,
    coded_channels,
    stitched_angles,
)
from audiovae.synthesis import DEFAULT_POLISH_STEPS
from audiovae.timbre.detail import decode_with_detail, with_detail
from audiovae.transform import DEFAULT_QUALITY


@torch.inference_mode()
def encode(clip: Clip, model: Model, *, quality: int = DEFAULT_QUALITY) -> Latents:
    """Turn a clip into the latents of its chunks.

    Args:
        clip: Any sample rate and number of channels.
        model: From `load_model`.
        quality: 1 (fewest bits) to 8, for a model that is conditioned on it.

    Returns:
        One row a chunk of 11.9 s, channel by channel; identical channels appear once.

    Raises:
        ConfigError: If the model has no such quality.
    """
    log_lambda = quality_lambda(model, quality)
    rows = list(chunk_rows(0, _signal(clip, model)))
    return encode_rows(rows, model, log_lambda)


@torch.inference_mode()
def decode(
    latents: Latents, model: Model, *, like: Clip, polish_steps: int = DEFAULT_POLISH_STEPS
) -> Clip:
    """Turn latents, moved or not, into sound.

    Args:
        latents: From `encode`, or made of such by `arithmetic`.
        model: The one that made them.
        like: The clip whose sample rate, length and channels the sound has.
        polish_steps: Griffin-Lim steps from the vocoder's phase: quality for time.

    Raises:
        ModelMismatchError: If another model made the latents.
        ShapeError: If they are not of the chunks of `like`.
    """
    latents.require_model(model.id)
    config = model.config.spectrogram
    signal = _signal(like, model)
    chunks = signal.stretch.chunks_needed(config)
    num_coded = len(coded_channels(signal))
    total = signal.stretch.frames(config)
    lengths = [len(chunk_range(chunk, total)) for chunk in chunks] * num_coded
    if latents.num_frames.tolist() != lengths:
        raise ShapeError(
            f"expected latents of {num_coded} channels in chunks of {lengths[: len(chunks)]} "
            f"frames, got {latents.num_frames.tolist()}; give the clip they were made from"
        )
    log_mels = _decode_rows(latents, model, lengths)
    stitched = tuple(
        stitch(log_mels[at : at + len(chunks)], 0, total)
        for at in range(0, len(log_mels), len(chunks))
    )
    coding = Coding(signal.stretch, channel_of(signal), stitched, stitched_angles(signal))
    reconstructor = Reconstructor(model, polish_steps=polish_steps)
    sound = reconstructor.sound([coding], Stopwatch())[0]
    sound = resample(sound, config.sample_rate, like.sample_rate)
    return Clip(sound[:, : like.num_samples], like.sample_rate, like.bit_depth)


@torch.inference_mode()
def encode_rows(rows: Sequence[Row], model: Model, log_lambda: float | None) -> Latents:
    """Latents of chunks, one row each, in the order given."""
    made: dict[int, Latents] = {}
    shapes = [padded_frames(row.log_mel.shape[1]) for row in rows]
    for shape, indices in batches_by_shape(shapes):
        log_mel, lengths = stack_rows(
            [rows[i].log_mel for i in indices], shape, BATCH_FRAMES, model.device
        )
        conditions = Conditions.at_lambda(log_lambda, len(lengths), model.device)
        output = model.vae.encode(log_mel, lengths, conditions)
        latents = with_detail(model.vae, log_mel, output)
        latents = replace(latents, model_id=model.id)
        made |= {i: latents.rows([place], max(shapes)) for place, i in enumerate(indices)}
    return join_latents([made[i] for i in range(len(rows))])


def _signal(clip: Clip, model: Model) -> Signal:
    config = model.config.spectrogram
    waveform = resample(clip.waveform, clip.sample_rate, config.sample_rate)
    return Signal(Stretch.whole(waveform.shape[1], config), waveform, config)


def _decode_rows(latents: Latents, model: Model, lengths: Sequence[int]) -> list[Tensor]:
    """`[mel, frame]` of each row."""
    decoded: dict[int, Tensor] = {}
    for shape, indices in batches_by_shape([padded_frames(length) for length in lengths]):
        # Rows to fill the fixed shape repeat the last one.
        filled = indices + [indices[-1]] * (batch_rows(shape) - len(indices))
        log_mel = decode_with_detail(model.vae, latents.rows(filled, shape), shape).cpu()
        decoded |= {i: log_mel[place, :, : lengths[i]] for place, i in enumerate(indices)}
    return [decoded[i] for i in range(len(lengths))]

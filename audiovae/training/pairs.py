"""Pairs to learn timbre from: every phrase played by many instruments.

    pairs/pairs.json            what they were made from; others are refused
    pairs/phrase_00017.npy      float16 [player, frame, mel]: one phrase by each of its players

All follows from the seed, a phrase's file is written whole or not at all, and a rerun makes only
those that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from audiovae.config import ModelConfig, PairsConfig, SpectrogramConfig
from audiovae.errors import ConfigError
from audiovae.replacing import replacing
from audiovae.spectrogram import log_mel_spectrogram
from audiovae.training.instruments import (
    Instrument,
    Layer,
    SoundfontPlayer,
    draw_electronic,
    draw_instrument,
)
from audiovae.training.phrases import draw_phrase

_FOLDER, _DESCRIPTION_NAME = "pairs", "pairs.json"
_VERSION = 1
_PLAIN_SHARE = 0.5  # of a phrase's players
_END_SECONDS = 0.2  # in which no note begins
_MIN_ORDERS_FOR_PROCESSES = 8  # fewer are played in the time that a process takes to start
_INSTRUMENT_STREAM, _PHRASE_STREAM, _CAST_STREAM = range(3)


@dataclass(frozen=True)
class Pairs:
    """Clips by phrase and instrument; every phrase has the same number of players.

    Attributes:
        log_mel: `[clip, frame, mel]`, float16, clips of a phrase side by side.
        phrase_of: `[clip]`, int64.
        instrument_of: `[clip]`, int64.
        band_power: `[clip, mel]`, mean over time of the squared magnitude.
    """

    log_mel: Tensor
    phrase_of: Tensor
    instrument_of: Tensor
    band_power: Tensor

    @property
    def players(self) -> int:
        """Clips of one phrase."""
        return int((self.phrase_of == self.phrase_of[0]).sum())

    def to(self, device: torch.device) -> Pairs:
        """The same clips on another device; what is drawn from stays on the CPU."""
        return Pairs(
            self.log_mel.to(device),
            self.phrase_of,
            self.instrument_of,
            self.band_power.to(device),
        )


@dataclass(frozen=True)
class PairSets:
    """Pairs to learn from, and pairs of other phrases to measure on.

    Attributes:
        train: Phrases and instruments to learn from.
        known: Other phrases on programs that were learnt from.
        unknown: The same phrases on made-up instruments that were not.
        hours: Of sound to learn from.
        instruments: Instruments to learn from.
    """

    train: Pairs
    known: Pairs
    unknown: Pairs
    hours: float
    instruments: int


@dataclass(frozen=True)
class _Order:
    """A phrase to be played: its number, its file, and who plays."""

    index: int
    path: Path
    instruments: tuple[Instrument, ...]


@dataclass(frozen=True)
class _Cast:
    """Who plays what: instruments, and the players of each phrase."""

    instruments: list[Instrument]
    phrases: list[list[int]]


def build_pairs(
    soundfont: Path,
    run_dir: Path,
    config: ModelConfig,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> PairSets:
    """Play and keep the pairs of `config`, or read what an earlier run kept.

    Args:
        soundfont: A `.sf2` or `.sf3` file.
        run_dir: The pairs go into a folder of it.
        config: Gives `pairs`, the log-mel and the seed.
        progress: Is told how many phrases are done, and of how many.
        workers: Processes that play; what they play does not depend on it.

    Raises:
        ConfigError: If the folder holds pairs of other settings.
    """
    folder = run_dir / _FOLDER
    player = _player(soundfont, config.spectrogram.sample_rate)
    _claim(folder, soundfont, config)
    cast = _cast(config.pairs, player.programs, config.training.seed)
    orders = [
        _Order(index, _phrase_path(folder, index), tuple(cast.instruments[i] for i in own))
        for index, own in enumerate(cast.phrases)
    ]
    missing = [order for order in orders if not order.path.is_file()]
    done = len(orders) - len(missing)
    for finished, _ in enumerate(_played(missing, soundfont, config, workers), start=1):
        if progress is not None:
            progress(done + finished, len(orders))
    return _read_sets(folder, cast, config)


def _claim(folder: Path, soundfont: Path, config: ModelConfig) -> None:
    """Write down what the pairs are made from, or see that they are made from the same."""
    description = {
        "version": _VERSION,
        "soundfont": soundfont.name,
        "soundfont_bytes": soundfont.stat().st_size if soundfont.is_file() else 0,
        "pairs": config.pairs.model_dump(),
        "spectrogram": config.spectrogram.model_dump(),
        "seed": config.training.seed,
    }
    path = folder / _DESCRIPTION_NAME
    text = json.dumps(description, indent=1) + "\n"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8", errors="replace") != text:
        raise ConfigError(
            f"{folder}: expected pairs of this config and soundfont, found others; "
            "choose another --output-dir, or remove that folder"
        )


def _cast(pairs: PairsConfig, programs: tuple[int, ...], seed: int) -> _Cast:
    """Instruments: programs as they are, made-up ones, and made-up ones to measure on."""
    draw = np.random.default_rng((seed, _INSTRUMENT_STREAM))
    plain = [Instrument((Layer(program),)) for program in programs]
    made_up = [draw_instrument(draw, programs) for _ in range(pairs.made_up_instruments)]
    made_up += [draw_electronic(draw) for _ in range(pairs.electronic_instruments)]
    unknown = [draw_instrument(draw, programs) for _ in range(pairs.validation_players)]
    learnt = len(plain) + len(made_up)
    num_plain = max(1, round(_PLAIN_SHARE * pairs.players))
    plain_turns = _turns(range(len(plain)), pairs.phrases * num_plain, seed)
    other_turns = _turns(
        range(len(plain), learnt), pairs.phrases * (pairs.players - num_plain), seed
    )
    phrases = [
        plain_turns[i * num_plain : (i + 1) * num_plain]
        + other_turns[i * (pairs.players - num_plain) : (i + 1) * (pairs.players - num_plain)]
        for i in range(pairs.phrases)
    ]
    spread = np.linspace(0, len(plain) - 1, pairs.validation_players).round().astype(int).tolist()
    measured = spread + list(range(learnt, learnt + pairs.validation_players))
    phrases += [measured] * pairs.validation_phrases
    return _Cast(plain + made_up + unknown, phrases)


def _turns(members: range, count: int, seed: int) -> list[int]:
    """`count` members in shuffled rounds, so that all come equally often."""
    draw = np.random.default_rng((seed, _CAST_STREAM, members.start))
    turns: list[int] = []
    while members and len(turns) < count:
        turns += draw.permutation(np.array(members)).tolist()
    return turns[:count]


def _played(
    orders: list[_Order], soundfont: Path, config: ModelConfig, workers: int
) -> Iterator[None]:
    """Fill orders, one after the other or in processes; yields whenever one is done."""
    fill = partial(_fill, soundfont=soundfont, config=config)
    if workers == 1 or len(orders) < _MIN_ORDERS_FOR_PROCESSES:
        yield from map(fill, orders)
        return
    # Spawned, since a fork of a process that has a GPU or threads may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(fill, orders)


def _fill(order: _Order, soundfont: Path, config: ModelConfig) -> None:
    """Play a phrase by all its players, and keep their log-mels."""
    spectrogram, pairs = config.spectrogram, config.pairs
    player = _player(soundfont, spectrogram.sample_rate)
    draw = np.random.default_rng((config.training.seed, _PHRASE_STREAM, order.index))
    phrase = draw_phrase(draw, pairs.frames / spectrogram.frames_per_second - _END_SECONDS)
    clips = []
    for instrument in order.instruments:
        played = player.play(phrase, instrument, pairs.frames * spectrogram.hop_samples)
        log_mel = log_mel_spectrogram(torch.from_numpy(played)[None], spectrogram)
        clips.append(log_mel[0].T.half())
    _save(order.path, torch.stack(clips))


@lru_cache(maxsize=1)
def _player(soundfont: Path, sample_rate: int) -> SoundfontPlayer:
    """One a process: a soundfont takes a second to load."""
    return SoundfontPlayer(soundfont, sample_rate)


def _read_sets(folder: Path, cast: _Cast, config: ModelConfig) -> PairSets:
    """All phrases, learnt from and measured on."""
    pairs, spectrogram = config.pairs, config.spectrogram
    half = pairs.validation_players
    learnt, measured = range(pairs.phrases), range(pairs.phrases, len(cast.phrases))
    everyone = slice(None)
    train = _read(folder, cast, learnt, everyone, spectrogram)
    return PairSets(
        train=train,
        known=_read(folder, cast, measured, slice(0, half), spectrogram),
        unknown=_read(folder, cast, measured, slice(half, None), spectrogram),
        hours=len(train.log_mel) * pairs.frames / spectrogram.frames_per_second / 3600,
        instruments=len(set(train.instrument_of.tolist())),
    )


def _read(
    folder: Path, cast: _Cast, phrases: range, players: slice, config: SpectrogramConfig
) -> Pairs:
    paths = [_phrase_path(folder, index) for index in phrases]
    log_mel = torch.cat([_clips_of(path)[players] for path in paths])
    casts = [cast.phrases[index][players] for index in phrases]
    power = [(2 * clip.float()).exp().mean(dim=0) for clip in log_mel]
    return Pairs(
        log_mel,
        torch.tensor([i for i, own in zip(phrases, casts, strict=True) for _ in own]),
        torch.tensor([instrument for own in casts for instrument in own]),
        torch.stack(power).clamp(min=config.floor**2),
    )


def _phrase_path(folder: Path, index: int) -> Path:
    return folder / f"phrase_{index:05d}.npy"


def _clips_of(path: Path) -> Tensor:
    """What `_save` wrote.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, TypeError, BadZipFile):
        raise ConfigError(
            f"{path}: expected a phrase that was played, got a damaged file; remove it and run the "
            "same command again, which plays it anew"
        ) from None


def _save(path: Path, clips: Tensor) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        np.save(file, clips.numpy())

"""A soundfont small enough to be made in a test: looped waves, one a program."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 22_050
_PERIODS, _PERIOD_SAMPLES = 20, 84  # 262.5 Hz, a little above middle C
_GUARD_SAMPLES = 46
_INSTRUMENT, _SAMPLE, _LOOPING = 41, 53, 54  # generators


def write_soundfont(path: Path, programs: tuple[int, ...] = (0, 40, 56, 73)) -> Path:
    """Write a `.sf2` whose programs differ in their harmonics."""
    waves = [_wave(index + 1) for index in range(len(programs))]
    guarded = [np.concatenate([wave, np.zeros(_GUARD_SAMPLES, np.int16)]) for wave in waves]
    starts = np.cumsum([0] + [len(wave) for wave in guarded])[:-1].tolist()
    count = range(len(programs))
    presets = [
        struct.pack("<20s3H3I", f"Program {p}".encode(), p, 0, i, 0, 0, 0)
        for i, p in enumerate(programs)
    ]
    presets.append(struct.pack("<20s3H3I", b"EOP", 0, 0, len(programs), 0, 0, 0))
    instruments = [struct.pack("<20sH", f"Instrument {i}".encode(), i) for i in count]
    instruments.append(struct.pack("<20sH", b"EOI", len(programs)))
    headers = [
        struct.pack(
            "<20s5IBbHH",
            f"Wave {i}".encode(),
            start,
            start + len(wave),
            start,
            start + len(wave),
            RATE,
            60,
            0,
            0,
            1,
        )
        for i, (start, wave) in enumerate(zip(starts, waves, strict=True))
    ]
    headers.append(struct.pack("<20s5IBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0))
    data = [
        _chunk(b"phdr", b"".join(presets)),
        _chunk(b"pbag", b"".join(struct.pack("<HH", i, 0) for i in range(len(programs) + 1))),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", b"".join(struct.pack("<HH", _INSTRUMENT, i) for i in count) + bytes(4)),
        _chunk(b"inst", b"".join(instruments)),
        _chunk(b"ibag", b"".join(struct.pack("<HH", 2 * i, 0) for i in range(len(programs) + 1))),
        _chunk(b"imod", bytes(10)),
        _chunk(
            b"igen",
            b"".join(struct.pack("<HHHH", _LOOPING, 1, _SAMPLE, i) for i in count) + bytes(4),
        ),
        _chunk(b"shdr", b"".join(headers)),
    ]
    information = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"INAM", b"test\0\0")
    body = (
        _chunk(b"LIST", b"INFO" + information)
        + _chunk(b"LIST", b"sdta" + _chunk(b"smpl", np.concatenate(guarded).tobytes()))
        + _chunk(b"LIST", b"pdta" + b"".join(data))
    )
    path.write_bytes(_chunk(b"RIFF", b"sfbk" + body))
    return path


def _wave(harmonics: int) -> NDArray[np.int16]:
    phase = 2 * np.pi * np.arange(_PERIODS * _PERIOD_SAMPLES) / _PERIOD_SAMPLES
    total = sum(np.sin(k * phase) / k for k in range(1, harmonics + 1))
    return np.asarray(12_000 * total / np.abs(total).max(), np.int16)


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

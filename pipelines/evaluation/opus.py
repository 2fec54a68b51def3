"""Opus, the codec to compare with: true bytes, and the sound they decode to."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from audiovae.audio import Clip, Waveform, read_audio, write_audio
from audiovae.errors import AudioVAEError

OPUS_KBPS: Final = (6, 8, 12, 16, 24)
_ENCODER: Final = "opusenc"
_TIMEOUT_SECONDS: Final = 600


class OpusError(AudioVAEError):
    """The encoder refused a clip."""


@dataclass(frozen=True, slots=True)
class OpusEncoder:
    """The `opusenc` command of opus-tools."""

    command: str

    @classmethod
    def find(cls) -> OpusEncoder | None:
        """The one on PATH, or None."""
        command = shutil.which(_ENCODER)
        return None if command is None else cls(command)

    def version(self) -> str:
        """As it names itself."""
        told = subprocess.run(
            [self.command, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
        return " ".join(told.stdout.split("\n", 1)[0].split())

    def transcode(self, clip: Clip, kbps: int) -> tuple[int, Waveform]:
        """Bytes of a clip's Opus file, and the sound it decodes to.

        The file has neither tags nor the padding that opusenc leaves for some, which at these
        rates would count against it.

        Args:
            clip: At most two channels make sense.
            kbps: Asked of the encoder; variable rate, so the file's own differs.

        Returns:
            Bytes of the whole file, and `[channel, sample]` of the clip's rate and length.

        Raises:
            OpusError: If the encoder fails.
        """
        with tempfile.TemporaryDirectory(prefix="audiovae_") as scratch:
            source, coded = Path(scratch) / "clip.wav", Path(scratch) / "clip.opus"
            write_audio(source, clip)
            options = ["--quiet", "--discard-comments", "--padding", "0", "--bitrate", str(kbps)]
            ended = subprocess.run(
                [self.command, *options, str(source), str(coded)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_SECONDS,
            )
            if ended.returncode or not coded.is_file():
                raise OpusError(f"opusenc at {kbps} kbps failed: {ended.stderr.strip()}")
            size = coded.stat().st_size
            decoded = read_audio(coded, sample_rate=clip.sample_rate).waveform
        missing = max(0, clip.num_samples - decoded.shape[1])
        padded = np.pad(decoded[:, : clip.num_samples], ((0, 0), (0, missing)))
        return size, np.ascontiguousarray(padded, np.float32)

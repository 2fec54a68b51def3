"""Files of every kind, made here for all audio tests, and that each is recognised."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audiovae.audio import claims_to_be_audio, is_audio_by_content, probe_audio

# name: (suffix, format, subtype, sample rate, channels)
SOUNDFILE_KINDS: dict[str, tuple[str, str, str, int, int]] = {
    "wav_u8": (".wav", "WAV", "PCM_U8", 8_000, 1),
    "wav_16": (".wav", "WAV", "PCM_16", 44_100, 2),
    "wav_24": (".wav", "WAV", "PCM_24", 48_000, 3),
    "wav_32": (".wav", "WAV", "PCM_32", 96_000, 1),
    "wav_float": (".wav", "WAV", "FLOAT", 22_050, 2),
    "wav_double": (".wav", "WAV", "DOUBLE", 44_100, 1),
    "wav_alaw": (".wav", "WAV", "ALAW", 8_000, 1),
    "wav_ulaw": (".wav", "WAV", "ULAW", 8_000, 2),
    "wav_ima": (".wav", "WAV", "IMA_ADPCM", 22_050, 2),
    "wav_ms": (".wav", "WAV", "MS_ADPCM", 22_050, 1),
    "wav_gsm": (".wav", "WAV", "GSM610", 8_000, 1),
    "wavex": (".wav", "WAVEX", "PCM_24", 44_100, 6),
    "rf64": (".wav", "RF64", "PCM_16", 44_100, 2),
    "w64": (".w64", "W64", "PCM_24", 44_100, 2),
    "flac": (".flac", "FLAC", "PCM_16", 44_100, 2),
    "flac_24": (".flac", "FLAC", "PCM_24", 192_000, 1),
    "vorbis": (".ogg", "OGG", "VORBIS", 44_100, 2),
    "opus": (".opus", "OGG", "OPUS", 48_000, 1),
    "mp3": (".mp3", "MP3", "MPEG_LAYER_III", 44_100, 2),
    "mp3_mono": (".mp3", "MP3", "MPEG_LAYER_III", 22_050, 1),
    "aiff": (".aiff", "AIFF", "PCM_16", 44_100, 2),
    "aifc": (".aifc", "AIFF", "FLOAT", 44_100, 1),
    "caf": (".caf", "CAF", "PCM_24", 44_100, 2),
    "caf_alac": (".caf", "CAF", "ALAC_16", 44_100, 2),
    "nist": (".nist", "NIST", "PCM_16", 16_000, 1),
    "au": (".au", "AU", "PCM_16", 44_100, 1),
}
# name: (suffix, FFmpeg format, codec, sample rate, channels)
PYAV_KINDS: dict[str, tuple[str, str, str, int, int]] = {
    "m4a": (".m4a", "ipod", "aac", 44_100, 2),
    "m4a_alac": (".m4a", "ipod", "alac", 44_100, 1),
    "aac": (".aac", "adts", "aac", 48_000, 2),
    "wma": (".wma", "asf", "wmav2", 44_100, 2),
    "mka": (".mka", "matroska", "aac", 44_100, 1),
    "webm": (".webm", "webm", "libopus", 48_000, 2),
    "ac3": (".ac3", "ac3", "ac3", 44_100, 2),
    "eac3": (".eac3", "eac3", "eac3", 48_000, 2),
    "mp2": (".mp2", "mp2", "mp2", 44_100, 2),
    "ts": (".ts", "mpegts", "aac", 44_100, 2),
    "wavpack": (".wv", "wv", "wavpack", 44_100, 2),
    "avi": (".avi", "avi", "libmp3lame", 44_100, 2),
    "avi_pcm": (".avi", "avi", "pcm_s16le", 44_100, 2),
    "avi_ac3": (".avi", "avi", "ac3", 48_000, 2),
    "mpg": (".mpg", "vob", "mp2", 44_100, 2),
    "voc": (".voc", "voc", "pcm_s16le", 44_100, 2),
    "tta": (".tta", "tta", "tta", 44_100, 2),
    "ogg_flac": (".oga", "ogg", "flac", 44_100, 2),
    "mp3_in_wav": (".wav", "wav", "libmp3lame", 44_100, 2),
    "mp3_lame": (".mp3", "mp3", "libmp3lame", 44_100, 2),
}
ALL_KINDS = [*SOUNDFILE_KINDS, *PYAV_KINDS]
LOSSY_TOLERANCE = 0.25


def sound(seconds: float, sample_rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return `[channel, sample]`: two gliding tones and a little noise."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    top = min(3_000.0, sample_rate / 5)
    tones = [
        0.3 * np.sin(2 * np.pi * (200 + 50 * c + (top - 200) * t / max(seconds, 1)) * t)
        for c in range(channels)
    ]
    noise = np.random.default_rng(seed).normal(0, 0.01, (channels, len(t)))
    return (np.stack(tones) + noise).astype(np.float32)


def make(kind: str, folder: Path, seconds: float = 1.3) -> tuple[Path, np.ndarray]:
    """Write a file of a kind; return its path and what was put in."""
    if kind in SOUNDFILE_KINDS:
        suffix, format_, subtype, rate, channels = SOUNDFILE_KINDS[kind]
        waveform = sound(seconds, rate, channels)
        path = folder / (kind + suffix)
        with soundfile.SoundFile(path, "w", rate, channels, subtype, format=format_) as file:
            for at in range(0, waveform.shape[1], 8_192):
                file.write(waveform[:, at : at + 8_192].T)
        return path, waveform
    suffix, format_, codec, rate, channels = PYAV_KINDS[kind]
    waveform = sound(seconds, rate, channels)
    path = folder / (kind + suffix)
    encode_av(path, waveform, rate, format_, codec)
    return path, waveform


def encode_av(
    path: Path,
    waveform: np.ndarray,
    rate: int,
    format_: str,
    codec: str,
    mux_options: dict[str, str] | None = None,
    layout: str | None = None,
) -> None:
    layout = layout or ("mono" if waveform.shape[0] == 1 else "stereo")
    with av.open(str(path), "w", format=format_, options=mux_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 128_000
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.format.name, layout, rate, stream.codec_context.frame_size or 4_096
        )
        frame = av.AudioFrame.from_ndarray(waveform.T.reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts = rate, 0
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(piece):
                container.mux(packet)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_made_file_is_recognised_by_content_alone(kind: str, tmp_path: Path) -> None:
    path, waveform = make(kind, tmp_path)
    hidden = path.rename(tmp_path / "nameless")
    assert is_audio_by_content(hidden)
    info = probe_audio(hidden)
    table = SOUNDFILE_KINDS if kind in SOUNDFILE_KINDS else PYAV_KINDS
    assert (info.sample_rate, info.num_channels) == table[kind][3:]
    assert abs(info.num_samples - waveform.shape[1]) < 4_096  # codecs round to whole frames


def test_names_that_claim_audio() -> None:
    assert claims_to_be_audio("a/B.WAV")
    assert claims_to_be_audio(Path("x.m4a"))
    assert not claims_to_be_audio("notes.txt")
    assert not claims_to_be_audio("wav")

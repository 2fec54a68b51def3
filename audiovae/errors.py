"""Typed errors.

Every error that a user can mend derives from `AudioVAEError`; its message says what was
expected, what came, and what to do. Commands print that message as one line.
"""


class AudioVAEError(Exception):
    """Base of every error this library raises on purpose."""


class ShapeError(AudioVAEError, ValueError):
    """An array has the wrong number of axes or the wrong size along one."""


class ConfigError(AudioVAEError, ValueError):
    """A configuration has an unknown key, a wrong type or a value out of range."""


class CheckpointError(AudioVAEError, ValueError):
    """A model file is missing, damaged, of another kind or of another version."""


class BitstreamError(AudioVAEError, ValueError):
    """A compressed file is damaged or not a compressed file of this project."""


class ModelMismatchError(AudioVAEError, ValueError):
    """Data made with one model was handed to another."""


class AudioReadError(AudioVAEError, OSError):
    """An audio file cannot be read."""


class NotAudioError(AudioReadError):
    """The content is not audio in a format we read."""


class EmptyAudioError(AudioReadError):
    """The file is audio by its header but holds no samples."""


class TruncatedAudioError(AudioReadError):
    """The file ends before its own header says it does."""


class CorruptAudioError(AudioReadError):
    """The file contradicts itself: a lying header or an undecodable body."""


class NonFiniteAudioError(AudioReadError):
    """Samples are NaN, infinite, or larger than any sound."""


class UnsupportedAudioError(AudioReadError):
    """The file is audio, but of a kind outside the stated limits (channels, rate)."""


class AudioWriteError(AudioVAEError, OSError):
    """An output file cannot be written."""

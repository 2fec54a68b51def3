"""What can be said of a compressed file, with and without the model that wrote it."""

from __future__ import annotations

from pathlib import Path

from audiovae.checkpoint import load_model
from audiovae.codec import AvaeReader, DamagedChunkError, measure_chunk
from audiovae.compressed import find_model_name
from audiovae.errors import AudioVAEError


def compressed_lines(path: Path, checkpoint: str | None = None) -> tuple[list[str], bool]:
    """Describe a compressed file, one fact a line, and say whether anything in it is damaged.

    Every chunk's checksum is checked; with the model at hand its symbols are decoded too, which
    gives the rate of each level.

    Args:
        path: The file.
        checkpoint: Name or path of the model; None for the shipped one that the file names.

    Raises:
        BitstreamError: If the header or the table of chunks is damaged.
    """
    with AvaeReader(path, salvage=True) as reader:
        header = reader.header
        asked = f"quality {header.quality}" if header.quality else "a rate or size"
        lines = [
            f"container: avae {reader.version}",
            f"model: {header.model_name or '(no name)'} (id {header.model_id})",
            f"bottleneck: {header.kind}",
            f"asked for: {asked}",
            f"log lambda: {header.log_lambda}",
            f"sample rate: {header.sample_rate} Hz",
            f"channels: {header.num_channels}, stored: {len(header.coded_channels)}",
            f"samples: {header.num_samples}",
            f"seconds: {header.duration_seconds:.6f}",
            f"bit depth of the source: {header.bit_depth}",
            f"chunks: {header.num_chunks}",
            f"bytes: {reader.num_bytes}, of these header and table: {reader.container_bytes}",
            f"kbps: {reader.kbps:.4f}",
        ]
        rates, damage = _walk(reader, checkpoint)
    return [*lines, *rates, *[f"damage: {line}" for line in damage or ["none"]]], bool(damage)


def _walk(reader: AvaeReader, checkpoint: str | None) -> tuple[list[str], list[str]]:
    """Rates by level if the model is at hand, and the damage that was found."""
    header = reader.header
    try:
        model = load_model(checkpoint or find_model_name(header), vocoder=None)
        reader.require_model(model)
    except AudioVAEError as error:
        model, why = None, str(error)
    damage: list[str] = []
    level_bits: dict[str, float] = {}
    corrections, side_bits = 0, 0.0
    for index in range(header.num_chunks):
        for channel in header.coded_channels:
            try:
                chunk = reader.read_chunk(channel, index)
                if model is not None:
                    measured = measure_chunk(model, chunk, header.log_lambda)
                    corrections += measured.corrections_bytes
                    side_bits += measured.side_bits
                    for name, bits in zip(
                        model.vae.config.level_names, measured.level_bits, strict=True
                    ):
                        level_bits[name] = level_bits.get(name, 0.0) + bits
            except DamagedChunkError as error:
                damage.append(str(error))
    if model is None:
        return [f"kbps by level: unknown: {why}"], damage
    seconds = header.duration_seconds
    by_part = {f"at {name}": bits for name, bits in level_bits.items()}
    by_part["of gains and angles"] = side_bits
    rates = [f"kbps {part}: {bits / 1000 / seconds:.4f}" for part, bits in by_part.items()]
    return [f"bytes of corrections: {corrections}", *rates], damage

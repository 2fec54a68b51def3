"""What is done to every file: the products, their settings, and the identity of both.

A product is one output file per input; `audiovae.transform` makes it, by the same name. To add
one here, add it to `PRODUCTS`. Measurements are products too, of `audiovae.measuring`; commands of
their own ask for them and read them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from audiovae.audio.formats import COMPRESSED_SUFFIX
from audiovae.commands import UsageProblem
from audiovae.errors import CheckpointError
from audiovae.pretrained import find_checkpoint, find_vocoder
from pipelines.runner.timbre_choice import TimbreChoice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from audiovae.checkpoint import Model
    from audiovae.errors import AudioVAEError
    from audiovae.reports import FileReport, SpanReport

FileFormat = Literal["wav", "flac", "ogg"]

_RECIPE_VERSION: Final = 4  # raise it when the same settings begin to mean other bytes


@dataclass(frozen=True, slots=True)
class Product:
    """One kind of output."""

    name: str
    suffix: str

    def path_for(self, source: str, file_format: FileFormat) -> str:
        """Path of the output below the output directory, for `source` below the input.

        The whole source name stays, so `a.wav` and `a.flac` never share an output.
        """
        return source + self.suffix.format(format=file_format)


PRODUCTS: Final = {
    product.name: product
    for product in (
        Product("compress", COMPRESSED_SUFFIX),
        Product("resynthesize", ".resynth.{format}"),
    )
}
MEASUREMENTS: Final = {
    product.name: product
    for product in (Product("embedding", ".embedding.npz"), Product("profile", ".profile.npz"))
}


class Processor(Protocol):
    """Makes the products of files; `audiovae.transform.Transformer` is one."""

    def process_files(
        self, jobs: Sequence[tuple[Path, Mapping[str, Path]]]
    ) -> list[FileReport | AudioVAEError]:
        """Do short files together; returns the report, or the error, of each."""

    def process_span(
        self, source: Path, part: Path, first_chunk: int, last_chunk: int
    ) -> SpanReport:
        """Do a run of chunks of a long file, into a part file."""

    def assemble(
        self,
        source: Path,
        parts: Sequence[Path],
        reports: Sequence[SpanReport],
        outputs: Mapping[str, Path],
    ) -> FileReport:
        """Make the products of a long file from its parts."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything the bytes of the outputs depend on, besides the input."""

    products: tuple[str, ...]
    checkpoint: str
    weights: str
    quality: int
    file_format: FileFormat
    kbps: float | None = None
    max_bytes: int | None = None
    polish: int = 16
    timbre: TimbreChoice | None = None

    @property
    def key(self) -> str:
        """Short hash that changes whenever an output may change."""
        facts = {name: value for name, value in asdict(self).items() if name != "checkpoint"}
        if "resynthesize" not in self.products:
            del facts["polish"]
        if self.timbre is None:
            del facts["timbre"]
        text = json.dumps({"version": _RECIPE_VERSION, **facts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def asked_size(self) -> str:
        """How large a file may be, for readers."""
        asked = [f"{self.kbps:g} kbps"] if self.kbps else []
        if self.max_bytes:
            asked.append(f"at most {self.max_bytes} bytes")
        return ", ".join(asked) + " a file" if asked else f"quality {self.quality} of 8"

    def outputs_for(self, source: str) -> tuple[tuple[str, str], ...]:
        """`(product, path below the output directory)` of every output of `source`.

        A compressed file is decoded, not compressed again; on the way to a timbre it is left out,
        because its latents are those of another model.
        """
        is_compressed = source.lower().endswith(COMPRESSED_SUFFIX)
        if self.timbre is not None:
            path = f"{source}.{self.timbre.name}.{self.file_format}"
            return () if is_compressed else (("resynthesize", path),)
        known = PRODUCTS | MEASUREMENTS
        return tuple(
            (name, known[name].path_for(source, self.file_format))
            for name in self.products
            if not (is_compressed and name != "resynthesize")
        )

    def processor(self, model: Model) -> Processor:
        """What makes the products, where the model is."""
        if self.products[0] in MEASUREMENTS:
            from audiovae.measuring import Measurer, build_measurement

            return Measurer(model, build_measurement(self.products[0], model))
        from audiovae.transform import Transformer, TransformSettings

        settings = TransformSettings(
            products=self.products,
            quality=self.quality,
            kbps=self.kbps,
            max_bytes=self.max_bytes,
            format=self.file_format,
            polish_steps=self.polish,
            move=None if self.timbre is None else self.timbre.move(),
        )
        return Transformer(model, settings)


def parse_products(text: str) -> tuple[str, ...]:
    """Read the value of `--do`, in the order of `PRODUCTS`.

    Raises:
        UsageProblem: If a name is unknown or none is given.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in PRODUCTS]
    if unknown or not asked:
        raise UsageProblem(
            f"--do: expected {', '.join(PRODUCTS)}, got '{unknown[0] if unknown else text}'; "
            "leave --do out to get everything"
        )
    return tuple(name for name in PRODUCTS if name in asked)


def weights_identity(checkpoint: str) -> str:
    """Hash of the bytes of the model's files: cheap, and needs neither torch nor the model.

    Raises:
        UsageProblem: If there is no such checkpoint.
    """
    digest = hashlib.sha256()
    try:
        for path in (find_checkpoint(checkpoint), find_vocoder(checkpoint)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except CheckpointError as error:
        raise UsageProblem(f"--checkpoint: {error}") from None
    except OSError as error:
        raise UsageProblem(
            f"--checkpoint: expected a model file, got {error.strerror} for {error.filename}"
        ) from None
    return digest.hexdigest()[:16]

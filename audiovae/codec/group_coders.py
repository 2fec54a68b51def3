"""How one latent group becomes symbols and is made again: one class a kind of bottleneck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from audiovae.checkpoint import Model
from audiovae.codec import code_indices, symbols
from audiovae.codec.symbols import Floats, GroupSymbols, Integers, exact
from audiovae.errors import CheckpointError, ModelMismatchError
from audiovae.models.bottlenecks import LatentSample, SymbolTable
from audiovae.models.bottlenecks.quantized import Bottleneck as Quantized
from audiovae.models.bottlenecks.quantized import FrequencyTable, residual_bits
from audiovae.models.bottlenecks.vq import Bottleneck as VectorQuantized
from audiovae.models.code_table import CodeTable

Answer = Callable[[int], bool]
ChooseRows = Callable[[int, int, Answer], Integers]
"""`rows_of(item, steps, answer)`: the row of each symbol of an item, `[channel, step]` flat."""
ReadSymbols = Callable[[tuple[int, int, int], ChooseRows], Integers]
"""`read([batch, channel, step], rows_of)`: symbols of that shape; 0 beyond each item's signal."""


class GroupCoder(Protocol):
    """What the codec asks of a kind of bottleneck."""

    @property
    def table(self) -> SymbolTable:
        """What the symbols are coded with."""
        ...

    @property
    def questions(self) -> int:
        """How many questions can be asked of one symbol."""
        ...

    def quantise(
        self, group: int, posterior: Tensor, prior: Tensor, valid_steps: Sequence[int]
    ) -> tuple[LatentSample, list[list[GroupSymbols]]]:
        """Encoder: the latent of one group, and for each item what is coded, in order.

        Args:
            group: Which, coarse to fine.
            posterior: `[batch, parameter, step]`, raw.
            prior: `[batch, parameter, step]`, raw.
            valid_steps: Steps of each item that cover signal; items behind those are not coded.
        """
        ...

    def restore(self, group: int, prior: Tensor, read: ReadSymbols) -> LatentSample:
        """Decoder: the latent of one group, and the model's own estimate of its bits."""
        ...


@dataclass(frozen=True)
class ResidualCoder:
    """Rounded residuals of the quantized bottleneck."""

    bottleneck: Quantized
    table: FrequencyTable
    questions: int = 1

    def quantise(
        self, group: int, posterior: Tensor, prior: Tensor, valid_steps: Sequence[int]
    ) -> tuple[LatentSample, list[list[GroupSymbols]]]:
        """Encoder: round the residual; see `symbols.quantise`."""
        sample, coded = symbols.quantise(
            self.bottleneck, self.table, posterior, prior, list(valid_steps)
        )
        return sample, [[one] for one in coded]

    def restore(self, group: int, prior: Tensor, read: ReadSymbols) -> LatentSample:
        """Decoder: add the decoded residual to the prior's mean."""
        of_residual = self.bottleneck.split_prior(prior)
        log_scale = exact(of_residual.log_scale)

        def rows_of(item: int, steps: int, answer: Answer) -> Integers:
            return symbols.rows_asking(self.table, log_scale[item, :, :steps].ravel(), answer)

        batch, channels, steps = log_scale.shape
        residual = torch.from_numpy(read((batch, channels, steps), rows_of)).to(of_residual.mean)
        bits = residual_bits(residual, of_residual.log_scale)
        return LatentSample(of_residual.mean + residual, bits)


@dataclass(frozen=True)
class IndexCoder:
    """Code indices of the vq bottleneck, stage after stage."""

    bottlenecks: tuple[VectorQuantized, ...]
    table: CodeTable

    @property
    def questions(self) -> int:
        """One a row."""
        return self.table.stages_and_rows[1]

    def quantise(
        self, group: int, posterior: Tensor, prior: Tensor, valid_steps: Sequence[int]
    ) -> tuple[LatentSample, list[list[GroupSymbols]]]:
        """Encoder: the nearest entries, and the row that the prior chooses for each."""
        bottleneck = self.bottlenecks[group]
        if not bool(torch.isfinite(posterior).all()):
            raise CheckpointError(
                "expected finite latents, got NaN or infinity; the model's weights are broken: "
                "copy the model file again or use another"
            )
        indices = bottleneck.indices_of(posterior.float())  # [batch, stage, step]
        logits = exact(bottleneck.row_logits(prior, indices))  # [batch, stage, row, step]
        numbers = indices.cpu().numpy().astype(np.int32)
        coded = []
        for item, steps in enumerate(valid_steps):
            stages = []
            for stage, of_stage in enumerate(numbers[item, :, :steps]):
                rows, ties = code_indices.rows_and_ties(logits[item, stage, :, :steps].T)
                stages.append(GroupSymbols(of_stage, rows + self._first_row(group, stage), ties))
            coded.append(stages)
        bits = bottleneck.index_bits(indices, prior)
        return LatentSample(bottleneck.vectors_of(indices), bits), coded

    def restore(self, group: int, prior: Tensor, read: ReadSymbols) -> LatentSample:
        """Decoder: read each stage under the rows that the prior and the last stage choose."""
        bottleneck = self.bottlenecks[group]
        batch, _, steps = prior.shape
        chosen: list[Tensor] = []
        for stage in range(self.table.stages_and_rows[0]):
            previous = chosen[-1] if chosen else None
            logits = exact(bottleneck.stage_logits(prior, stage, previous))
            rows_of = _rows_reader(logits, self._first_row(group, stage))
            numbers = read((batch, 1, steps), rows_of)[:, 0]
            chosen.append(torch.from_numpy(numbers).long().to(prior.device))
        indices = torch.stack(chosen, dim=1)
        bits = bottleneck.index_bits(indices, prior)
        return LatentSample(bottleneck.vectors_of(indices), bits)

    def _first_row(self, group: int, stage: int) -> int:
        stages, rows = self.table.stages_and_rows
        return (group * stages + stage) * rows


def _rows_reader(logits: Floats, first_row: int) -> ChooseRows:
    """What chooses the rows of one stage, of logits `[batch, row, step]`."""

    def rows_of(item: int, steps: int, answer: Answer) -> Integers:
        return code_indices.rows_asking(logits[item, :, :steps].T, answer) + np.int32(first_row)

    return rows_of


def group_coder(model: Model) -> GroupCoder:
    """What codes the groups of this model.

    Raises:
        ModelMismatchError: If its bottleneck makes no compressed files.
    """
    bottlenecks, table = model.vae.bottlenecks(), model.frequency_table
    first = bottlenecks[0]
    if isinstance(first, Quantized) and isinstance(table, FrequencyTable):
        return ResidualCoder(first, table)
    if isinstance(table, CodeTable):
        return IndexCoder(tuple(b for b in bottlenecks if isinstance(b, VectorQuantized)), table)
    raise ModelMismatchError(
        "expected a model with the quantized or the vq bottleneck to code with, got "
        f"{model.config.name} with '{model.config.bottleneck.kind}'; choose another model"
    )

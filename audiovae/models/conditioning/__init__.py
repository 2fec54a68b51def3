"""What both paths of the network are told besides the sound: one module a kind.

A kind is a module here, a table of the config and a field of `Conditions`. Its name is that of
its weights in a model file, so it never changes.
"""

from __future__ import annotations

from audiovae.config import ModelConfig
from audiovae.models.conditioning.base import Conditioning
from audiovae.models.conditioning.label import LabelConditioning
from audiovae.models.conditioning.quality import QualityConditioning


def build_conditionings(config: ModelConfig) -> dict[str, Conditioning]:
    """The kinds that `config` asks for, by name, in the order in which they fill the context."""
    kinds: dict[str, Conditioning] = {}
    if config.quality is not None:
        kinds["quality"] = QualityConditioning(config.quality)
    if config.label is not None:
        kinds["label"] = LabelConditioning(config.label)
    return kinds

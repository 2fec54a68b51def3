"""How well scores tell two kinds apart: the receiver operating characteristic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiovae.errors import ConfigError


@dataclass(frozen=True)
class DetectionCurve:
    """Hits against false alarms, at every threshold.

    Attributes:
        area: Under the curve: how often an anomaly scores above a normal sound.
        false_alarm_rates: Ascending from 0 to 1.
        hit_rates: At these.
    """

    area: float
    false_alarm_rates: tuple[float, ...]
    hit_rates: tuple[float, ...]


def detection_curve(scores: Sequence[float], is_anomaly: Sequence[bool]) -> DetectionCurve:
    """The curve of scores whose truth is known.

    Raises:
        ConfigError: If only one kind is there.
    """
    from sklearn.metrics import auc, roc_curve

    if len(set(is_anomaly)) != 2:
        raise ConfigError(
            f"expected labels of both kinds, got {len(is_anomaly)} of one; "
            "label normal sounds and anomalies"
        )
    false_alarms, hits, _ = roc_curve(np.array(is_anomaly), np.array(scores))
    return DetectionCurve(
        float(auc(false_alarms, hits)),
        tuple(float(rate) for rate in false_alarms),
        tuple(float(rate) for rate in hits),
    )

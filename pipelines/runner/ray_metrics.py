"""Counters of a batch for whoever watches the cluster (Prometheus, the dashboard)."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipelines.runner.summary import RunFacts


class RayMetrics:
    """What a run has done so far, as metrics of Ray."""

    def __init__(self) -> None:
        self._counters = {
            "files": Counter("audiovae_files_total", "Files that are done or failed."),
            "failed_files": Counter("audiovae_failed_files_total", "Files that failed."),
            "audio_seconds": Counter("audiovae_audio_seconds_total", "Seconds of audio done."),
            "dead_workers": Counter("audiovae_dead_workers_total", "Workers that were replaced."),
        }
        self._in_flight = Gauge("audiovae_units_in_flight", "Units of work in some worker's hands.")
        self._told = dict.fromkeys(self._counters, 0.0)

    def update(self, facts: RunFacts, units_in_flight: int) -> None:
        """Tell what has come since the last call."""
        for name, counter in self._counters.items():
            value = float(getattr(facts, name))
            if value > self._told[name]:
                counter.inc(value - self._told[name])
                self._told[name] = value
        self._in_flight.set(units_in_flight)

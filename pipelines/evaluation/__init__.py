"""The parts of `python -m pipelines.evaluate`."""

"""What lies behind `python -m pipelines.train`: data, single stages, recipes of several."""

"""The networks: hierarchical VAE, its bottlenecks and conditioning, and the vocoder."""

"""What can be said about sounds: how near they are to others, and how unusual.

Distances and predicted opinions of one sound against its original (`metrics`, `opinion`,
`timbre_metrics`); embeddings and maps of many; profiles, and what in them no normal sound has;
likelihoods, samples and disentanglement of a model.
"""

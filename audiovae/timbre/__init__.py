"""Timbre as a value: what a sound is like on average, kept under a name, and moved by."""

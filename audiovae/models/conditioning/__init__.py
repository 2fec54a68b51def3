"""What the networks are conditioned on: one module a kind, summed into one context vector."""

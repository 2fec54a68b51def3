"""Audio to log-mel shards: intake, plan, workers, and the directory that remembers all of it."""

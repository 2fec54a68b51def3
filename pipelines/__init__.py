"""Commands: what a user runs. Files, plans, progress and Ray live here; sound and models do not."""

"""The training loop, checkpoints, schedules and meters."""

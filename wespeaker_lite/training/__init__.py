"""Training: the loop, checkpoints, schedules, logs."""

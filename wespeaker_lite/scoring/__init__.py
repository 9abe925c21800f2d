"""Scores of trials, their normalisation, calibration and metrics."""

"""Deployment: export, cost and use of trained models."""

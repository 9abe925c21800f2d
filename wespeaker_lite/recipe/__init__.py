"""The config of an experiment, stamps of stages, trained models."""

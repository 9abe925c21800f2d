"""What ties a run together: the experiment's config, stamps, trained models."""

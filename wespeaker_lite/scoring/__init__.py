"""Embeddings, trial scores, score normalisation, metrics and plots."""

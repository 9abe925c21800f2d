"""Embeddings: extraction from features, sets of them in memory."""

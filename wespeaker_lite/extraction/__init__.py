"""Embeddings: extraction from features, and sets of them in memory."""

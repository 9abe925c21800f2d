"""Corpora and data sets: lists, downloads, augmented copies, feature jobs."""

"""Samples in, features out: reading, decoding, resampling, fbanks."""

"""Kaldi tables, arks, data directories, audio, crops and augmentation."""

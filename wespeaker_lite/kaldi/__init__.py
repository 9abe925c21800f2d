"""Kaldi formats: tables, arks, data directories, trial lists."""

"""Kaldi's formats: tables, arks, data directories, trial lists."""

"""Used by every package: errors, typed configs, safe writing of files."""

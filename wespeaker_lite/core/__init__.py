"""What every package uses: errors, typed configs, files that appear whole or not at all."""

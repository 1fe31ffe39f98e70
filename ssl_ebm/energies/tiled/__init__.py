"""The fast path for rows of energies: by tiles, in linear memory. Never needed to understand a loss."""

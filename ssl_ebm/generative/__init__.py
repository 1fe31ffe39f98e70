"""The energy of an image, E(x): heads on an encoder, samplers, replay, losses, and the exact oracles."""

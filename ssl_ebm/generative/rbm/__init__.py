"""The restricted Boltzmann machine as an encoder and as an energy of images."""

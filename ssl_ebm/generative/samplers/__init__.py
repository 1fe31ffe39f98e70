"""Markov chains that draw images from an energy."""

"""Pretraining: the loop, the run that it advances, and what is watched meanwhile."""

"""Protocols on arrays of features and matrices of energies, and the report; no run, no model."""

"""Several objectives, several seeds, one budget: trained, evaluated and compared by one command."""

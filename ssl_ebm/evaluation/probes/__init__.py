"""What frozen features are worth to a classifier that is fitted on them."""

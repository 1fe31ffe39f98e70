"""Words and pictures of runs. The numbers come from `evaluation`."""

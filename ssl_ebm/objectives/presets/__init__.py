"""The published objectives, one file a family: each is a function that composes an `Objective`."""

"""Features of whole data sets: extracted, stored, and described without labels."""

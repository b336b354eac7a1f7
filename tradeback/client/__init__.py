"""A client of the feed."""

"""Raw frames on disk: recorded without decoding, surveyed, and read back in the order in which they came."""

"""Series computed from tape batches in event time: bars, Enigma, completeness. Pure."""

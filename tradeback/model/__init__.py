"""Ground floor: the record, symbols, time slots, errors, limits, configuration. Pure."""

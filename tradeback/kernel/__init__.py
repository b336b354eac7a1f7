"""What every compiled kernel stands on: raw memory, the compile decorator, checksums. Pure."""

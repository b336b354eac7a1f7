"""The tape: segments on disk, the hot ring in memory, one writer, a cursor per reader."""

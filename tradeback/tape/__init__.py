"""The tape: the append-only sequence of 64-byte records, in memory while hot, in segment files always.

`writer.Tape` is the one writer of a folder, `reader.TapeReader` reads it from any process, and
`cursor.Cursor` is a position of either. docs/tape.md describes the files.
"""

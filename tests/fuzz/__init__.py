"""Garbage in millions: mutated frames between good ones, through a real connection's decoding."""

"""Fault worlds: an engine against an exchange that breaks on request, checked against the exchange's truth."""

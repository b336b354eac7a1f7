"""Fault worlds: an engine on an exchange that breaks on request, checked against the exchange's truth."""

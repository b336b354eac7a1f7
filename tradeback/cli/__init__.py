"""The `tradeback` command: one file per sub-command, thin."""

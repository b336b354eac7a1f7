"""Where durable and shared things are kept: four small protocols (`ports`), each with an embedded default."""

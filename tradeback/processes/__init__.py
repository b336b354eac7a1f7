"""The processes of one `tradeback run`: what they share, how they talk, and what each of them does."""

"""Bad input of every kind, and what the package says to it."""

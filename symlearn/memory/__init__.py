"""Memory: sizes as text, bytes of tensors in use, code run without numbers, what paths need."""

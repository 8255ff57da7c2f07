"""Base models: where they lie, how they are loaded, what of them is trained and what is 4-bit."""

"""The embedded sample: synthetic chest phantoms, their texts, and articles that carry them. Nothing here is real."""

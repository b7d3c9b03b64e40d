"""A whole job: its stages one after the other, what they cost, and the recommendation."""

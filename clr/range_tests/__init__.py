"""The LR range test: its plan, one repetition, the reading of a curve, and curves that others recorded."""

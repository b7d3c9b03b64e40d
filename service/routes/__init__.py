"""The routes, one module for each kind of thing. Thin: they open the transaction and choose the representation."""

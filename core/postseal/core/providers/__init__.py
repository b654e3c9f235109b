"""Key providers: where wrapping keys live. Each is a module of its own, imported only by who uses it."""

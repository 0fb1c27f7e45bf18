"""One file per source of facts. Each has a `read` that returns the fact's value or raises Unavailable."""

"""The built-in checks: one file per fault. The registry finds them here; no list is kept."""

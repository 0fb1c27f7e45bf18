"""One file per format. Each has `render(report, ...) -> str`, pure."""

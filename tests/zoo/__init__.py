"""Models of well-known libraries, their residual branches written down by reading the sources."""

"""What residual branches are and do, measured on a model that is there."""

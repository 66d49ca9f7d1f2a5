"""ResidualDroppath in the loops of other libraries; each module imports its library and `residualdroppath.core` alone."""

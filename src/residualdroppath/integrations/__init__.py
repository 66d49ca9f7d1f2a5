"""ResidualDroppath in the loops of other libraries; a module imports its library and `residualdroppath.core` alone."""

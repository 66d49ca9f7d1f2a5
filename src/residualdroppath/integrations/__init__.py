"""ResidualDroppath in the loops of other libraries; modules import their library and `residualdroppath.core` alone."""

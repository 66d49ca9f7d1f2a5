"""The spiral of the paper: a narrow, deep residual network whose every unit can be looked at."""

"""Settings for the tests of the core."""

import torch

torch.set_num_threads(1)  # tensors of a few rows: more threads only wait for each other

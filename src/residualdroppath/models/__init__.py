"""Networks by name: any of timm's, and small residual ones for small images."""

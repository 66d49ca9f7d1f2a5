"""Networks by name: timm's, torchvision's and those of Hugging Face transformers, and small residual ones."""

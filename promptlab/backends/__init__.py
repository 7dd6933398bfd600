"""What runs a pretrained model: `base` says what a backend is, `mlm` scores masked language models."""

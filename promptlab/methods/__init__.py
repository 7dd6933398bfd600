"""Ways to get label scores: nothing fitted, soft prompts, prefixes, adapters, fine-tuning, probes; one file each."""

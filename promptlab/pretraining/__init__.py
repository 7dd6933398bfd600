"""Pretraining of small masked language models: raw text in, an ordinary transformers folder out."""

"""Encoders, decoders and the normalisation they share."""

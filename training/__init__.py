"""Clicks in, a trained and evaluated artifact out: preparation, training, evaluation."""

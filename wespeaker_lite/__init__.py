"""Small speaker-verification models, trained by knowledge distillation, in Kaldi-style recipes."""

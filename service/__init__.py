"""The HTTP service: live sessions in, next items out."""

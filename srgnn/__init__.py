"""SR-GNN: the model and the one path from clicks to items, shared by training, evaluation and serving."""

__version__ = "0.1.0"

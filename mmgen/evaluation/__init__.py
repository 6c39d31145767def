"""How good are the pictures: a fixed feature network, scores, sheets and the card of a pipeline."""

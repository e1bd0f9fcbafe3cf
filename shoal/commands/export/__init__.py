"""`shoal export`: a trained team's policies as ONNX, one file a player, for whatever runs them elsewhere."""

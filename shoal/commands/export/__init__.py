"""`shoal export`: writes the policies of a trained team as ONNX files, one for each player."""

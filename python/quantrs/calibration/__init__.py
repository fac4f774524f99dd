"""What calibrated methods know of a model's activations: texts, hidden states, inputs of linears, importance matrices."""

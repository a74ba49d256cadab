"""Train models: today the built-in reference model, later quantization-aware training and distillation."""

"""Train models: today the recipe of the built-in reference model, later quantization-aware training and distillation."""

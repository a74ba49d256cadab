"""The recipe of the built-in reference model: tokenizer, data, network, loop and card, in the order they run."""

"""Files of weights, written with what they are and read without trust."""

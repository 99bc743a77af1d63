"""The examples, launched like a user launches them."""

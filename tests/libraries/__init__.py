"""Other libraries beside this package, each in a new virtual environment. `make test-libraries` runs them."""

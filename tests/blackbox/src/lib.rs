//! Black-box tests of the built programs; see `tests/`.

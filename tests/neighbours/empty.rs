//! Nothing: what is here is tests.

//! Thousands of connections that say nothing, or a byte at a time.

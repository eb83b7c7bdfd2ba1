//! Tests of `property`.

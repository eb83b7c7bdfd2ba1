//! Tests of `chunks`.

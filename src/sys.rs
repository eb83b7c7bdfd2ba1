//! What needs `unsafe`, behind functions that do not.
#![allow(unsafe_code)]

pub mod blocks;

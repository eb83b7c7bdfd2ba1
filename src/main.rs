//! weir: an OpenAI-compatible gateway for Gemini, Claude, OpenAI and compatible servers.
#![allow(dead_code)]

mod capability;
mod chat;
mod config;
mod dialect;
mod error;
mod failure;
mod json;
mod provider;
mod route;
mod sse;

fn main() {}

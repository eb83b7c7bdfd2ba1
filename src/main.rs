//! weir: an OpenAI-compatible gateway for Gemini, Claude, OpenAI and compatible servers.
#![allow(dead_code)]

mod cancel;
mod capability;
mod chat;
mod config;
mod demo;
mod dialect;
mod error;
mod failure;
#[cfg(test)]
mod golden;
mod json;
mod provider;
mod route;
mod schema;
mod server;
mod sse;

fn main() {}

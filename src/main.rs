//! weir: an OpenAI-compatible gateway for Gemini, Claude, OpenAI and compatible servers.
#![allow(dead_code)]

mod cancel;
mod capability;
mod chat;
mod clock;
mod config;
mod demo;
mod desk;
mod dialect;
mod error;
mod failure;
mod inbound;
mod json;
mod line;
mod pool;
mod provider;
mod reply;
mod route;
mod schema;
mod server;
mod sockets;
mod sse;
mod stream;
mod watch;

fn main() {}

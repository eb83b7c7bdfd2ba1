//! The tests that drive the built binary from outside: a caller on one side, a scripted upstream
//! on the other, both on loopback. Nothing here needs a key, the internet or a fixed port, and
//! every wait has a limit.
//!
//! `wire`, `client`, `upstream`, `weir` and `completion` are the tools; `selftest` holds them
//! against each other; the other modules are the contract, one topic each.

// The helpers outside of test functions are tests as well: what fails in them fails the test.
#![allow(clippy::unwrap_used)]
// The tools are meant to be complete, so that the next test finds what it needs.
#![allow(dead_code)]

mod client;
mod completion;
mod uploads;
mod upstream;
mod wait;
mod weir;
mod wire;

mod api;
mod asked_responses;
mod callers;
mod client_limits;
mod compatible;
mod continuations;
mod discovery;
mod dry_run;
mod embeddings;
mod endless;
mod exhaustion;
mod faults;
mod first_mile;
mod gemini;
mod hangup;
mod haproxy;
mod heartbeats;
mod inbound;
mod init_scripts;
mod judgement;
mod kinds;
mod leases;
mod lessons;
mod limits;
mod loading;
mod local_servers;
mod logs;
mod messages;
mod million;
mod observe;
mod operation;
mod packed;
mod passthrough;
mod peaks;
mod pictures;
mod recordings;
mod relayed_streams;
mod reload;
mod request_log;
mod responses;
mod retries;
mod running;
mod secrets;
mod selftest;
mod soak;
mod streams;
mod text;
mod token_limits;
mod translation;
mod unix_floods;
mod unix_socket;
mod unsendable;
mod upgrade;
mod web_pages;

//! The entries of the table, in the order of the reference.

use super::Fallback::{self, Flag, Number, Required, Text, Words};
use super::Place::{self, ClientKey, RequestLog, Top, Upstream};
use super::{Kind, Setting, Unit};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
const GIB: u64 = 1 << 30;

/// As `Format::ALL` names them, which a test holds.
pub const FORMATS: &[&str] = &["openai", "anthropic", "gemini", "responses"];
const TOP: Fallback = Fallback::Words("the one at the top", "");

// By hand, since one entry is easier to compare with the next in two lines than in seven.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    set(Top, "listen", Kind::Text, Text("127.0.0.1:8080"),
        "Where callers connect: `host:port` (port 0: any free one) or `unix:/path`."),
    set(Top, "client_keys", Kind::ClientKeys, Words("none: everyone who can connect", r#"["env:WEIR_KEY", {"name": "ci", "key": "env:CI_KEY", "models": ["gemini-*"], "requests_per_minute": 600, "tokens_per_minute": 200000, "concurrent": 8, "tokens_per_day": 5000000}]"#),
        "Keys that callers may use, each a secret or an object as below."),
    set(Top, "client_keys_file", Kind::Text, Words("none", r#""/etc/weir/keys""#),
        "A file of further keys, read again on SIGHUP. Each line: a name, the key or its `sha256:` digest, then names of models and limits such as `concurrent=4`, all apart by spaces; `#` begins a comment."),
    set(Top, "open", Kind::Flag, Flag(false),
        "Allows an address that other machines can reach without any `client_keys`."),
    set(Top, "upstreams", Kind::Upstreams, Required(""),
        "The providers and servers to ask, in the order in which they are tried."),
    set(Top, "models", Kind::Aliases, Words("none", r#"{"fast": ["gemini/gemini-2.5-flash"]}"#),
        "Aliases: a name and its targets in order, each `upstream/model` or another alias."),
    set(Top, "workers", count(1, 16_384), Number(64),
        "Chat requests served at once, streams included."),
    set(Top, "retries", count(0, 100), Number(3),
        "Further attempts after failures of a server or a connection."),
    set(Top, "quota_switch", Kind::Flag, Flag(true),
        "After a 429, tries another key; `false` hands the 429 to the caller."),
    set(Top, "deadline_ms", millis(1, DAY), Number(600_000),
        "The longest that one request may take, retries included."),
    set(Top, "connect_ms", millis(1, HOUR), Number(5_000),
        "The longest wait for a connection to an upstream."),
    set(Top, "first_byte_ms", millis(1, DAY), Number(300_000),
        "The longest wait for the first byte of an answer. Unless it is set, an answer that is relayed in one piece may take until the deadline."),
    set(Top, "idle_ms", millis(1, DAY), Number(300_000),
        "The longest silence within an answer."),
    set(Top, "lease_wait_ms", millis(0, HOUR), Number(10_000),
        "The longest wait for a free slot of an upstream."),
    set(Top, "keepalive_ms", millis(1, HOUR), Number(10_000),
        "Silence on a stream after which the caller gets a heartbeat."),
    set(Top, "write_timeout_ms", millis(1, HOUR), Number(30_000),
        "How long a caller may take none of its answer before it is cut off."),
    set(Top, "body_wait_ms", millis(1, HOUR), Number(30_000),
        "How long a caller may take to send the body of a request."),
    set(Top, "drain_ms", millis(0, DAY), Number(30_000),
        "How long running requests may go on after SIGTERM."),
    set(Top, "backoff_ms", millis(0, HOUR), Number(200),
        "The pause before the first retry; doubled for each further one, with jitter."),
    set(Top, "cool_down_max_ms", millis(0, DAY), Number(300_000),
        "The longest rest of a rate-limited key, whatever the upstream asks for."),
    set(Top, "max_body_bytes", Kind::Number(Unit::Bytes, 1, GIB), Number(32 << 20),
        "The longest request body."),
    set(Top, "max_answer_bytes", Kind::Number(Unit::Bytes, 1, GIB), Number(32 << 20),
        "The longest answer of an upstream that is not streamed, and the longest event of one that is."),
    set(Top, "max_connections", count(1, 1_000_000), Number(1_024),
        "Connections of callers at once."),
    set(Top, "max_waiting", count(0, 1_000_000), Number(256),
        "Requests that may wait for a free slot of one upstream at once."),
    set(Top, "log_level", Kind::Choice(&["off", "error", "warn", "info", "debug"]), Text("info"),
        "What is logged: each request is a line at `info`. `--verbose` is `debug`."),
    set(Top, "log_format", Kind::Choice(&["text", "json"]), Text("text"),
        "How a line of the log is written."),
    set(Top, "request_log", Kind::RequestLog, Words("none", r#"{"folder": "/var/log/weir", "max_files": 1000, "max_bytes": 104857600}"#),
        "Writes each chat's request and answer into a file of its own."),
    set(Top, "metrics_open", Kind::Flag, Flag(false),
        "Answers `/metrics` without a client key."),
    set(Top, "proxy", Kind::Text, Words("as `HTTPS_PROXY` and `NO_PROXY` say", r#""http://proxy.example:3128""#),
        "URL of the proxy to upstreams; `env:` and `file:` are understood."),
    set(Top, "ca_file", Kind::Text, Words("built-in authorities, or `SSL_CERT_FILE`", r#""/etc/ssl/own-ca.pem""#),
        "A PEM file of certificate authorities to trust instead of the built-in ones."),
    set(Top, "strict", Kind::Flag, Flag(false),
        "Refuses a request field that the upstream does not know, rather than dropping it with a warning."),
    set(Upstream, "name", Kind::Text, Required(r#""gemini""#),
        "Its name in `upstream/model`, logs and metrics: letters, digits, `.`, `_`, `-`."),
    set(Upstream, "format", Kind::Choice(FORMATS), Required(r#""gemini""#),
        "What it speaks."),
    set(Upstream, "base_url", Kind::Text, Words("the vendor's own", r#""https://generativelanguage.googleapis.com""#),
        "Its address, with or without a slash or version at the end."),
    set(Upstream, "keys", Kind::Texts, Words("none", r#"["env:GEMINI_API_KEY"]"#),
        "Its keys, used in turn. The vendors' own addresses need one."),
    set(Upstream, "slots", count(1, 4_096), Number(8),
        "Requests at once on each key."),
    set(Upstream, "models", Kind::Texts, Words("the vendor's own names", r#"["gemini-*"]"#),
        "Names of the models it serves; `*` stands for any text."),
    set(Upstream, "discover", Kind::Flag, Flag(false),
        "Asks the upstream for its list of models, every hour and beside the serving. `/v1/models` shows them, those that no pattern leads elsewhere are routed here, and what the list says a model can do is heeded."),
    set(Upstream, "headers", Kind::Headers, Words("none", r#"{"x-team": "blue"}"#),
        "Further headers of each request; `env:` and `file:` are understood."),
    set(Upstream, "connect_ms", millis(1, HOUR), TOP,
        "As at the top, for this upstream."),
    set(Upstream, "first_byte_ms", millis(1, DAY), TOP,
        "As at the top, for this upstream."),
    set(Upstream, "idle_ms", millis(1, DAY), TOP,
        "As at the top, for this upstream."),
    set(Upstream, "proxy", Kind::Text, TOP,
        "As at the top, for this upstream."),
    set(Upstream, "ca_file", Kind::Text, TOP,
        "As at the top, for this upstream."),
    set(Upstream, "strict", Kind::Flag, TOP,
        "As at the top, for this upstream."),
    set(Upstream, "official", Kind::Flag, Words("whether the address is the vendor's own", "false"),
        "Treats it as the vendor's own service rather than a compatible server."),
    set(Upstream, "developer_as_system", Kind::Flag, Flag(false),
        "For compatible servers: sends `developer` messages as `system`."),
    set(Upstream, "strip", Kind::Texts, Words("none", r#"["stream_options"]"#),
        "For compatible servers: request fields that are not sent on."),
    set(Upstream, "anthropic_version", Kind::Text, Text("2023-06-01"),
        "For Anthropic: the `anthropic-version` to send."),
    set(ClientKey, "name", Kind::Text, Required(r#""ci""#),
        "Its name in logs and metrics."),
    set(ClientKey, "key", Kind::Text, Required(r#""env:CI_KEY""#),
        "The secret, or `sha256:` and the 64 hexadecimal digits of its digest."),
    set(ClientKey, "models", Kind::Texts, Words("all", r#"["gemini-*"]"#),
        "Names of the models that it may ask for; `*` stands for any text."),
    set(ClientKey, "requests_per_minute", count(1, 1_000_000_000), Words("no limit", "600"),
        "Chat requests a minute, as a pace: what is unused adds up to one minute's worth. Kept in memory, as all limits; a restart begins anew."),
    set(ClientKey, "tokens_per_minute", count(1, 1_000_000_000_000), Words("no limit", "200000"),
        "Tokens a minute, prompt and completion together. They are counted when an answer is over, so that a long one is paid for by those after it."),
    set(ClientKey, "concurrent", count(1, 1_000_000), Words("no limit", "8"),
        "Chat requests at once."),
    set(ClientKey, "tokens_per_day", count(1, 1_000_000_000_000_000), Words("no limit", "5000000"),
        "Tokens a day, which ends at midnight UTC. In memory: a restart begins with none used."),
    set(RequestLog, "folder", Kind::Text, Required(r#""/var/log/weir""#),
        "Where the files go, made if it is not there. Each can be read by its owner alone and holds no secret of the config, but it does hold what people wrote; bodies are cut to 256 KiB."),
    set(RequestLog, "max_files", count(1, 1_000_000), Number(1_000),
        "Files that are kept; the oldest go first."),
    set(RequestLog, "max_bytes", Kind::Number(Unit::Bytes, 1 << 20, GIB * 1_024), Number(100 << 20),
        "Bytes of all files that are kept; the oldest go first."),
];

const fn set(
    place: Place,
    name: &'static str,
    kind: Kind,
    default: Fallback,
    meaning: &'static str,
) -> Setting {
    Setting {
        place,
        name,
        kind,
        default,
        meaning,
    }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Number(Unit::Millis, min, max)
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Number(Unit::Count, min, max)
}

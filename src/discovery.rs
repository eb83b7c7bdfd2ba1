//! The model lists of the providers: asked for beside the serving, and kept for an hour.
//!
//! A thread of its own sees to it, once weir serves, so that no start waits for it; each list is
//! asked for on a thread for itself, so that a silent server holds up no other one. A list that
//! cannot be had leaves the last one as it is and is asked for again in growing pauses. What a
//! list says of a model wins over the static table. Everything is bounded: pages, bytes, models and
//! time.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use log::{debug, info, warn};
use parking_lot::{Condvar, Mutex};

use crate::cancel::{self, Cancel, Cause};
use crate::config::{Config, Key, Upstream};
use crate::kind::{self, Facts};
use crate::line::{Answer, Broken, Line};
use crate::provider::Format;

mod learned;
mod list;

use learned::Outcome;
pub use learned::{Learned, List};
pub use list::Model;

/// One list, all its pages, may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

const PAGES: usize = 10;
const PAGE_BYTES: u64 = 4 << 20;
const MODELS: usize = 2_000;

/// Keys that are tried for one list.
const KEYS: usize = 3;

const STACK: usize = 512 * 1024;

/// How long a request waits for a list that is being asked for, so that the first moments after
/// the start and a model that was just added need no second try.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The thread that asks, once there is something to ask for.
#[derive(Default)]
pub struct Discovery {
    begun: AtomicBool,
    lacks_thread: AtomicBool,
    /// The configuration was reloaded.
    woken: Mutex<bool>,
    changed: Condvar,
}

/// Upstreams with their lines, of the configuration that holds now.
pub type Asked = Vec<(Upstream, Line)>;

impl Discovery {
    /// Starts the thread if an upstream wants one, or has it look at the new configuration.
    pub fn look(self: &Arc<Self>, wanted: bool, asked: impl Fn() -> Asked + Send + 'static) {
        self.wake();
        if !wanted || self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let discovery = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("discovery".into())
            .stack_size(STACK)
            .spawn(move || discovery.run(&asked));
        if let Err(error) = spawned {
            warn!("no thread to ask for model lists: {error}");
            self.begun.store(false, Ordering::Release);
            self.lacks_thread.store(true, Ordering::Release);
        }
    }

    /// Something is due before the time that was slept for.
    fn wake(&self) {
        *self.woken.lock() = true;
        self.changed.notify_all();
    }

    /// Has the lists asked for again, because nobody knows a name that was asked for, and waits a
    /// moment for what they say.
    pub fn look_again(&self, config: &Config) {
        let now = Instant::now();
        let mut looks = false;
        for learned in lists(config) {
            looks |= learned.look_again(now);
        }
        if looks {
            self.wake();
        }
        self.settle(config);
    }

    /// Waits a moment for lists that are being asked for.
    pub fn settle(&self, config: &Config) {
        // Without a thread nobody asks. (Before it has begun, it is about to.)
        if self.lacks_thread.load(Ordering::Acquire) {
            return;
        }
        let until = Instant::now() + A_MOMENT;
        for learned in lists(config) {
            learned.settle(until);
        }
    }

    fn run(self: &Arc<Self>, asked: &dyn Fn() -> Asked) {
        loop {
            *self.woken.lock() = false;
            let mut next: Option<Instant> = None;
            for (upstream, line) in asked() {
                let Some(learned) = upstream.options.learned.clone() else {
                    continue;
                };
                let now = Instant::now();
                if learned.begin(now) {
                    self.ask(upstream, line, learned);
                } else {
                    next = next.into_iter().chain(learned.due(now)).min();
                }
            }
            let mut woken = self.woken.lock();
            let is_asleep = |woken: &mut bool| !*woken;
            match next {
                Some(next) => {
                    self.changed.wait_while_until(&mut woken, is_asleep, next);
                }
                None => self.changed.wait_while(&mut woken, is_asleep),
            }
        }
    }

    /// Asks for one list on a thread of its own, of which each upstream has one at most.
    fn ask(self: &Arc<Self>, upstream: Upstream, line: Line, learned: Arc<Learned>) {
        let asking = Asking {
            discovery: Arc::clone(self),
            learned,
            outcome: Outcome::Failed,
        };
        let spawned = thread::Builder::new()
            .name("list".into())
            .stack_size(STACK)
            .spawn(move || {
                let mut asking = asking;
                asking.outcome = refresh(&upstream, &line, &asking.learned);
            });
        if let Err(error) = spawned {
            warn!("no thread to ask for a model list: {error}");
        }
    }
}

/// A question under way. However it ends, others may ask again then.
struct Asking {
    discovery: Arc<Discovery>,
    learned: Arc<Learned>,
    outcome: Outcome,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Failed);
        self.learned.end(outcome, Instant::now());
        self.discovery.wake();
    }
}

fn lists(config: &Config) -> impl Iterator<Item = &Arc<Learned>> {
    let all = config.upstreams.iter();
    all.filter_map(|upstream| upstream.options.learned.as_ref())
}

/// Why a list was not had.
enum Lack {
    /// The upstream answers, and has none.
    NoList(String),
    Trouble(String),
}

/// Asks one upstream, with one key after the other.
fn refresh(upstream: &Upstream, line: &Line, learned: &Learned) -> Outcome {
    let name = &upstream.name;
    let mut last = Lack::Trouble("it has no key".into());
    for key in upstream.keys.iter().take(KEYS) {
        match within(PATIENCE, || look(upstream, key, line)) {
            Ok((models, facts)) => {
                let kind = facts.kind.map_or("", |kind| kind.name);
                debug!("upstream {name} is {kind} {:?}", facts.version);
                upstream.options.found.set(facts);
                info!("upstream {name} lists {} models", models.len());
                return Outcome::Had(models);
            }
            // Whatever the upstream said may repeat the key, so only the status is told.
            Err(lack) => {
                let (Lack::NoList(why) | Lack::Trouble(why)) = &lack;
                debug!("no model list from upstream {name} by {}: {why}", key.name);
                last = lack;
            }
        }
    }
    let (why, outcome) = match last {
        Lack::NoList(why) => (why, Outcome::NoList),
        Lack::Trouble(why) => (why, Outcome::Failed),
    };
    // Once in a row, since it is asked for again soon.
    if learned.is_news(&outcome) {
        let then = match (learned.list(), &outcome) {
            (List::Had, _) => "the last one stays",
            (_, Outcome::NoList) => "it is asked for names that nobody lists",
            _ => "it is asked for again",
        };
        warn!("upstream {name} gave no model list ({why}); {then}");
    }
    outcome
}

/// Asks an upstream what it is and has: its list, and what it says of itself.
fn look(upstream: &Upstream, key: &Key, line: &Line) -> Result<(Vec<Model>, Facts), Lack> {
    let (models, signs) = fetch(upstream, key, line)?;
    let owner = models.first().and_then(|model| model.owned_by.as_deref());
    let found = kind::by_signs(owner, &|name| signs.get(name).cloned());
    let mut facts = Facts {
        kind: found.filter(|_| upstream.format == Format::OpenAi),
        version: signs.get(kind::VERSION_HEADER).cloned(),
        ..Facts::default()
    };
    let kind = upstream.options.kind.or(facts.kind);
    if let Some(path) = kind.and_then(|kind| kind.about) {
        let url = [kind::root(&upstream.base_url), path].concat();
        // What it does not say of itself is left as it is.
        if let Ok((body, _)) = get(upstream, key, line, &url)
            && let Ok(about) = serde_json::from_slice(&body)
        {
            facts.read(&about);
        }
    }
    Ok((models, facts))
}

/// One look, for `--probe`.
pub fn look_once(upstream: &Upstream, line: &Line) -> Result<(Vec<Model>, Facts), String> {
    let key = upstream.keys.first().ok_or("it has no key")?;
    if !upstream.options.kind().lists {
        return Err("servers of its kind have no list of models".into());
    }
    let looked = within(PATIENCE, || look(upstream, key, line));
    looked.map_err(|(Lack::NoList(why) | Lack::Trouble(why))| why)
}

/// Runs `ask` and ends whatever it waits for when the time is over.
fn within<T>(limit: Duration, ask: impl FnOnce() -> Result<T, Lack>) -> Result<T, Lack> {
    let cancel = Arc::<Cancel>::default();
    let (over, wait) = bounded::<()>(0);
    let watched = Arc::clone(&cancel);
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                watched.pull(Cause::Deadline);
            }
        })
        .map_err(|error| Lack::Trouble(error.to_string()))?;
    let _entered = cancel::enter(&cancel);
    let asked = ask();
    drop(over);
    asked
}

/// Headers that tell what a server is.
type Signs = HashMap<&'static str, String>;

fn fetch(upstream: &Upstream, key: &Key, line: &Line) -> Result<(Vec<Model>, Signs), Lack> {
    let mut models = Vec::new();
    let mut signs = Signs::new();
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES {
        let url = list::url(upstream.format, &upstream.base_url, cursor.as_deref());
        let (body, told) = get(upstream, key, line, &url)?;
        signs.extend(told);
        let (page, next) = list::read(upstream.format, &body).map_err(Lack::NoList)?;
        models.extend(page);
        models.truncate(MODELS);
        // A cursor that stays where it is would only end with the pages.
        if next.is_none() || next == cursor || models.len() >= MODELS {
            break;
        }
        cursor = next;
    }
    Ok((models, signs))
}

/// One question may take this long where only the status counts.
const CHECK: Duration = Duration::from_secs(5);

/// Whether the server behind an upstream is well, by its kind's own route for that, else by its list
/// of models.
pub fn is_well(upstream: &Upstream, line: &Line) -> bool {
    let Some(key) = upstream.keys.first() else {
        return false;
    };
    let kind = upstream.options.kind();
    let url = match kind.health {
        Some(path) => [kind::root(&upstream.base_url), path].concat(),
        None if kind.lists => list::url(upstream.format, &upstream.base_url, None),
        None => upstream.base_url.clone(),
    };
    let trouble = |broken: Broken| Lack::Trouble(broken.message);
    let asked = within(CHECK, || {
        let answer = ask(upstream, key, line, &url).map_err(trouble)?;
        Ok(answer.status)
    });
    // Whoever refuses the question, or has no such route, is there.
    asked.is_ok_and(|status| status < 500)
}

fn get(upstream: &Upstream, key: &Key, line: &Line, url: &str) -> Result<(Vec<u8>, Signs), Lack> {
    let broken = |broken: Broken| Lack::Trouble(broken.message);
    let mut answer = ask(upstream, key, line, url).map_err(broken)?;
    let status = answer.status;
    match status {
        200 if !answer.is_compressed() => {}
        // Asked again, they may say something else.
        408 | 425 | 429 | 500 | 502..=599 => {
            return Err(Lack::Trouble(format!("status {status}")));
        }
        _ => return Err(Lack::NoList(format!("status {status}"))),
    }
    let mut body = Vec::new();
    answer
        .body
        .by_ref()
        .take(PAGE_BYTES + 1)
        .read_to_end(&mut body)
        .map_err(|error| Lack::Trouble(error.to_string()))?;
    if body.len() as u64 > PAGE_BYTES {
        return Err(Lack::NoList("a page is too long".into()));
    }
    let told = |name: &'static str| Some((name, answer.header(name)?.to_owned()));
    let signs = kind::SIGN_HEADERS.into_iter().filter_map(told).collect();
    Ok((body, signs))
}

fn ask(upstream: &Upstream, key: &Key, line: &Line, url: &str) -> Result<Answer, Broken> {
    let (name, prefix) = upstream.auth_header();
    let credential = key
        .secret
        .as_ref()
        .map(|secret| format!("{prefix}{}", secret.reveal()));
    let mut headers = vec![("accept", "application/json")];
    if let Some(credential) = &credential {
        headers.push((name, credential));
    }
    if upstream.format == Format::Anthropic {
        headers.push(("anthropic-version", &upstream.options.anthropic_version));
    }
    for (name, value) in &upstream.headers {
        headers.push((name, value));
    }
    line.get(url, &headers)
}

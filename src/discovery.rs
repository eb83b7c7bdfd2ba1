//! The model lists of the providers: asked for beside the serving, and kept for an hour.
//!
//! A thread of its own asks, once weir serves, so that no start and no request waits for it. A
//! list that cannot be had leaves the last one as it is. What a list says of a model wins over
//! the static table. Everything is bounded: pages, bytes, models and time.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use log::{debug, info, warn};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::cancel::{self, Cancel, Cause};
use crate::config::{Key, Upstream};
use crate::kind::{self, Facts};
use crate::line::Line;
use crate::provider::Format;

mod list;

pub use list::Model;

/// How long a list is good for.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// When a list that could not be had is asked for again.
const AGAIN: Duration = Duration::from_secs(60);

/// One list, all its pages, may take this long.
const PATIENCE: Duration = Duration::from_secs(30);

const PAGES: usize = 10;
const PAGE_BYTES: u64 = 4 << 20;
const MODELS: usize = 2_000;

/// Keys that are tried for one list.
const KEYS: usize = 3;

const STACK: usize = 512 * 1024;

/// What one upstream's list said.
#[derive(Debug, Default)]
pub struct Learned(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    models: Vec<Arc<Model>>,
    by_id: HashMap<String, usize>,
    /// When it is to be asked for; `None`: at once.
    due: Option<Instant>,
}

impl Learned {
    /// A list that has come.
    #[cfg(test)]
    pub fn of(models: Vec<Model>) -> Arc<Learned> {
        let learned = Learned::default();
        learned.set(models);
        Arc::new(learned)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Model>> {
        let known = self.0.read();
        let at = *known.by_id.get(id)?;
        known.models.get(at).cloned()
    }

    pub fn ids(&self) -> Vec<String> {
        let known = self.0.read();
        known.models.iter().map(|model| model.id.clone()).collect()
    }

    /// Has the list asked for at once: the configuration was read anew.
    pub fn ask_now(&self) {
        self.0.write().due = None;
    }

    fn due(&self) -> Option<Instant> {
        self.0.read().due
    }

    fn set(&self, models: Vec<Model>) {
        let mut known = self.0.write();
        known.by_id = models
            .iter()
            .enumerate()
            .map(|(at, model)| (model.id.clone(), at))
            .collect();
        known.models = models.into_iter().map(Arc::new).collect();
        known.due = Some(Instant::now() + LIFETIME);
    }

    fn failed(&self) {
        self.0.write().due = Some(Instant::now() + AGAIN);
    }
}

/// The thread that asks, once there is something to ask for.
#[derive(Default)]
pub struct Discovery {
    begun: AtomicBool,
    /// The configuration was reloaded.
    woken: Mutex<bool>,
    changed: Condvar,
}

/// Upstreams with their lines, of the configuration that holds now.
pub type Asked = Vec<(Upstream, Line)>;

impl Discovery {
    /// Starts the thread if an upstream wants one, or has it look at the new configuration.
    pub fn look(self: &Arc<Self>, wanted: bool, asked: impl Fn() -> Asked + Send + 'static) {
        *self.woken.lock() = true;
        self.changed.notify_all();
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
        }
    }

    fn run(&self, asked: &dyn Fn() -> Asked) {
        loop {
            *self.woken.lock() = false;
            let mut next: Option<Instant> = None;
            for (upstream, line) in asked() {
                let Some(learned) = &upstream.options.learned else {
                    continue;
                };
                if learned.due().is_none_or(|due| due <= Instant::now()) {
                    refresh(&upstream, &line, learned);
                }
                let due = learned.due();
                next = next.into_iter().chain(due).min();
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
}

/// Asks one upstream, with one key after the other.
fn refresh(upstream: &Upstream, line: &Line, learned: &Learned) {
    let name = &upstream.name;
    let mut last = String::from("it has no key");
    for key in upstream.keys.iter().take(KEYS) {
        match within(PATIENCE, || look(upstream, key, line)) {
            Ok((models, facts)) => {
                let kind = facts.kind.map_or("", |kind| kind.name);
                debug!("upstream {name} is {kind} {:?}", facts.version);
                upstream.options.found.set(facts);
                info!("upstream {name} lists {} models", models.len());
                return learned.set(models);
            }
            // Whatever the upstream said may repeat the key, so only the status is told.
            Err(why) => {
                debug!("no model list from upstream {name} by {}: {why}", key.name);
                last = why;
            }
        }
    }
    warn!("upstream {name} gave no model list ({last}); the last one stays");
    learned.failed();
}

/// Asks an upstream what it is and has: its list, and what it says of itself.
fn look(upstream: &Upstream, key: &Key, line: &Line) -> Result<(Vec<Model>, Facts), String> {
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
    within(PATIENCE, || look(upstream, key, line))
}

/// Runs `ask` and ends whatever it waits for when the time is over.
fn within<T>(limit: Duration, ask: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
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
        .map_err(|error| error.to_string())?;
    let _entered = cancel::enter(&cancel);
    let asked = ask();
    drop(over);
    asked
}

/// Headers that tell what a server is.
type Signs = HashMap<&'static str, String>;

fn fetch(upstream: &Upstream, key: &Key, line: &Line) -> Result<(Vec<Model>, Signs), String> {
    let mut models = Vec::new();
    let mut signs = Signs::new();
    let mut cursor: Option<String> = None;
    for _ in 0..PAGES {
        let url = list::url(upstream.format, &upstream.base_url, cursor.as_deref());
        let (body, told) = get(upstream, key, line, &url)?;
        signs.extend(told);
        let (page, next) = list::read(upstream.format, &body)?;
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

fn get(upstream: &Upstream, key: &Key, line: &Line, url: &str) -> Result<(Vec<u8>, Signs), String> {
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
    let mut answer = line.get(url, &headers).map_err(|broken| broken.message)?;
    if answer.status != 200 || answer.is_compressed() {
        return Err(format!("status {}", answer.status));
    }
    let mut body = Vec::new();
    answer
        .body
        .by_ref()
        .take(PAGE_BYTES + 1)
        .read_to_end(&mut body)
        .map_err(|error| error.to_string())?;
    if body.len() as u64 > PAGE_BYTES {
        return Err("a page is too long".into());
    }
    let told = |name: &'static str| Some((name, answer.header(name)?.to_owned()));
    let signs = kind::SIGN_HEADERS.into_iter().filter_map(told).collect();
    Ok((body, signs))
}

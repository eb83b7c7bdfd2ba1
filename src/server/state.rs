//! `State`: what follows from one configuration, and what of the one before goes on in it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Upstream};
use crate::discovery::{Discovery, List};
use crate::error::ApiError;
use crate::fetch::Fetcher;
use crate::kept::Answers;
use crate::lesson::Learned;
use crate::limits::Limits;
use crate::line::{self, Line};
use crate::mask::Masks;
use crate::memory::Memory;
use crate::metrics::Names;
use crate::pool::Pool;
use crate::request_log::RequestLog;
use crate::route::{self, Target};
use crate::seal::Seals;

/// Connections to upstreams are not used again after this time at rest. When there was no work for
/// as long after much of it, they are closed.
pub const IDLE_AGE: Duration = Duration::from_secs(50);

/// What follows from one configuration. Requests hold on to the one they began with.
pub struct State {
    pub config: Config,
    /// One for each upstream of the config.
    pub pools: Vec<Arc<Pool>>,
    pub lines: Vec<Line>,
    /// Gets images for models that cannot, where the config allows that.
    pub fetcher: Option<Fetcher>,
    /// Asks for the upstreams' own lists of models; lives as long as the process.
    pub discovery: Arc<Discovery>,
    /// Lives as long as the process, whatever is reloaded.
    pub memory: Arc<Memory>,
    /// Answers that callers go on from; lives as long as the process.
    pub kept: Arc<Answers>,
    /// Lives as long as this state: whoever reloads wants to see what is so now.
    pub learned: Learned,
    /// What client keys have used; lives as long as the process, too.
    pub limits: Arc<Limits>,
    pub request_log: Option<Arc<RequestLog>>,
    /// Requests that wait for a model to be loaded; lives as long as the process.
    pub patient: Arc<AtomicUsize>,
    /// What no text from an upstream may show.
    pub masks: Masks,
    /// What vendors signed, on its way through callers of another dialect.
    pub seals: Arc<Seals>,
    /// The models that metrics tell apart.
    pub names: Names,
    /// When the configuration was read.
    pub since: SystemTime,
}

impl State {
    /// Lays the lines and fills the pools. Keys that `before` had keep what is known of them.
    pub fn new(mut config: Config, before: Option<&State>) -> Result<State, String> {
        for upstream in &mut config.upstreams {
            keep_list(upstream, before);
        }
        let mut pools = Vec::new();
        let mut lines = Vec::new();
        for upstream in &config.upstreams {
            let settings = line::Settings {
                connect: upstream.connect,
                proxy: upstream.proxy.clone(),
                ca_file: upstream.ca_file.clone(),
                connections: upstream.slots * upstream.keys.len(),
                idle_age: IDLE_AGE,
            };
            let line = Line::new(&settings)
                .map_err(|message| format!("upstream {}: {message}", upstream.name))?;
            lines.push(line);
            pools.push(pool_for(upstream, &config, before));
        }
        let fetcher = config.fetch_images.then(Fetcher::new).transpose()?;
        Ok(State {
            fetcher,
            request_log: config.request_log.as_ref().map(|wanted| {
                let old = before.and_then(|before| before.request_log.as_ref());
                match old.filter(|old| old.is_for(wanted)) {
                    Some(old) => Arc::clone(old),
                    None => Arc::new(RequestLog::open(wanted)),
                }
            }),
            masks: Masks::new(&config),
            seals: Arc::new(seals(&config)),
            names: Names::new(&config),
            since: SystemTime::now(),
            config,
            pools,
            lines,
            discovery: before.map_or_else(Arc::default, |before| Arc::clone(&before.discovery)),
            memory: before.map_or_else(Arc::default, |before| Arc::clone(&before.memory)),
            kept: before.map_or_else(Arc::default, |before| Arc::clone(&before.kept)),
            learned: Learned::default(),
            patient: before.map_or_else(Arc::default, |before| Arc::clone(&before.patient)),
            limits: before.map_or_else(Arc::default, |before| Arc::clone(&before.limits)),
        })
    }

    /// The targets of `model`. Where there are none, the upstreams are asked once more for their
    /// lists: a server may just have been started, or given a model.
    pub fn route(&self, model: &str) -> Vec<Target> {
        let targets = route::route(&self.config, model);
        if !targets.is_empty() || model.is_empty() {
            return targets;
        }
        self.discovery.look_again(&self.config);
        route::route(&self.config, model)
    }

    /// Nobody has the model, or nobody knows yet.
    pub fn no_route(&self, model: &str) -> ApiError {
        let unknown = format!("the model `{model}` is not known yet");
        self.list_missing(&unknown).unwrap_or_else(|| {
            let message = format!("the model `{model}` is served by no upstream of this gateway");
            ApiError::new(404, message)
                .with_code("model_not_found")
                .with_param("model")
        })
    }

    /// 503 where an upstream has not told its models yet. It says `what` first.
    pub fn list_missing(&self, what: &str) -> Option<ApiError> {
        let now = Instant::now();
        let missing = self.config.upstreams.iter().filter_map(|upstream| {
            let learned = upstream.options.learned.as_ref()?;
            (learned.list() == List::Missing).then(|| (learned.left(now), &upstream.name))
        });
        let (left, name) = missing.min_by_key(|(left, _)| *left)?;
        let message = format!("{what}: the upstream `{name}` has not given its list of models");
        let error = ApiError::new(503, message).with_code("no_capacity");
        Some(error.with_retry_after(left))
    }

    fn upstream(&self, name: &str) -> Option<(&Upstream, &Arc<Pool>)> {
        let mut all = self.config.upstreams.iter().zip(&self.pools);
        all.find(|(known, _)| known.name == name)
    }
}

/// Gateways with the same keys read each other's seals.
fn seals(config: &Config) -> Seals {
    let upstreams = config.upstreams.iter();
    let keys = upstreams.flat_map(|upstream| &upstream.keys);
    let secrets = keys.filter_map(|key| key.secret.as_ref());
    let own = config.seal_key.as_ref().map(|key| key.reveal());
    Seals::new(own, secrets.map(|secret| secret.reveal()))
}

/// The pool that `before` had for this upstream, if its keys are the same ones: its running requests
/// have their slots then, and nobody loses a place in the line. Else a new one, in which the keys
/// that stay go on with their slots.
fn pool_for(upstream: &Upstream, config: &Config, before: Option<&State>) -> Arc<Pool> {
    let (waiting, ceiling) = (config.max_waiting, config.cool_down_max);
    let pool = || Pool::new(upstream, waiting, ceiling);
    let known = before.and_then(|before| before.upstream(&upstream.name));
    let Some((old, old_pool)) = known else {
        return Arc::new(pool());
    };
    let is_there = old.base_url == upstream.base_url;
    let same_bound = old.slots_set == upstream.slots_set;
    if is_there && old.keys == upstream.keys && old.slots == upstream.slots && same_bound {
        old_pool.set_bounds(waiting, ceiling);
        return Arc::clone(old_pool);
    }
    let mut pool = pool().with_tally(&old_pool.tally);
    for (index, key) in upstream.keys.iter().enumerate() {
        let same = |old: &crate::config::Key| old.secret == key.secret;
        if let Some(old_index) = old.keys.iter().position(same) {
            pool.go_on(index, old_pool, old_index, is_there);
        }
    }
    Arc::new(pool)
}

/// A model list of the same upstream is kept over a reload.
fn keep_list(upstream: &mut Upstream, before: Option<&State>) {
    let known = before.and_then(|before| {
        let all = &before.config.upstreams;
        all.iter()
            .find(|old| old.name == upstream.name && old.base_url == upstream.base_url)
    });
    let Some(old) = known else {
        return;
    };
    upstream.options.found = old.options.found.clone();
    let known = old.options.learned.clone();
    if let (Some(learned), Some(known)) = (&mut upstream.options.learned, known) {
        *learned = known;
    }
}

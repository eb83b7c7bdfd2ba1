//! `Pool`: an upstream's clients, who has which, and which keys rest.
//!
//! A client is one slot of one key. Free clients wait in a channel per key; a request leases one
//! and the lease's guard brings it back. Whoever finds none free stands in one line, first come
//! first served, and gets a client handed over directly. Time is handed in; the timer thread calls
//! `tick` so that keys whose rest is over reach those who wait. Knows no HTTP.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::cancel::{Cancel, Wait};
use crate::config;
use crate::failure::{Class, Failure};
use crate::kind::Found;

mod down;
mod health;
mod tally;

pub use down::Down;
use health::Health;
pub use health::{Asked, Rest};
pub use tally::Tally;

/// One slot of one key. Over a reload it may belong to two pools for a while, in which its key has
/// different places.
#[derive(Debug)]
pub struct Client {
    state: Mutex<ClientState>,
}

/// What a client is doing and has done.
#[derive(Debug, Default, Clone)]
pub struct ClientState {
    /// The model and the begin of the request that has it now.
    pub busy: Option<(String, Instant)>,
    pub requests: u64,
}

/// All clients of one upstream.
#[derive(Debug)]
pub struct Pool {
    keys: Vec<PoolKey>,
    desk: Mutex<Desk>,
    max_waiting: AtomicUsize,
    /// What the server told of its slots; `None`: the config says how many there are.
    found: Option<Found>,
    cool_down_max: Mutex<Duration>,
    pub tally: Arc<Tally>,
    /// How the server behind it stands, whatever its keys are.
    pub server: down::Server,
    /// Shares slots with this one, and has requests in its line that the timer must not forget.
    before: Mutex<Weak<Pool>>,
}

#[derive(Debug)]
struct PoolKey {
    name: String,
    slots: usize,
    put: Sender<Arc<Client>>,
    take: Receiver<Arc<Client>>,
    /// Every client, leased or not.
    clients: Vec<Arc<Client>>,
}

#[derive(Debug)]
struct Desk {
    health: Vec<Health>,
    /// Whose turn it is among the keys.
    next: usize,
    line: VecDeque<Waiter>,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    wanted: Wanted,
    hand: Sender<Granted>,
}

/// A client, and its key in this pool.
type Granted = (usize, Arc<Client>);

/// What a request asks a pool for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub model: String,
    /// Keys that this request has done with.
    pub barred: Vec<usize>,
    /// The key to begin with, if it is free.
    pub preferred: Option<usize>,
}

/// Why there is no lease.
#[derive(Debug, Clone, PartialEq)]
pub enum NoLease {
    /// No key serves the model now. `soonest` is when the first one will, if it can be known.
    Resting {
        class: Class,
        soonest: Option<Duration>,
        why: String,
        /// What the caller was told whose request led to it.
        status: u16,
    },
    /// This request has tried every key.
    Spent,
    /// All slots stayed taken for as long as a request may wait.
    Busy,
    /// Too many wait already.
    LineFull,
    /// The wait was ended from outside.
    Cancelled,
}

/// A client on loan. Dropping it returns the client, on every way out, panics included.
#[derive(Debug)]
pub struct Lease {
    client: Arc<Client>,
    /// Index into the upstream's keys.
    key: usize,
    pool: Arc<Pool>,
    since: Instant,
    model: String,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.client.state.lock().busy = None;
        self.pool.give_back((self.key, Arc::clone(&self.client)));
    }
}

impl Lease {
    pub fn key(&self) -> usize {
        self.key
    }

    pub fn key_name(&self) -> &str {
        &self.pool.keys[self.key].name
    }

    /// The attempt gave an answer: what this key was blamed for before is forgotten.
    pub fn succeeded(&self) {
        self.pool.server.answered();
        let mut desk = self.pool.desk.lock();
        desk.health[self.key].succeeded(&self.model, self.since);
    }

    /// The attempt failed: the key rests as the failure's class says.
    pub fn failed(&self, failure: &Failure, asked: Asked, now: Instant) {
        self.pool.tally.failed(failure.class);
        self.pool.server.failed(failure);
        let ceiling = *self.pool.cool_down_max.lock();
        let mut desk = self.pool.desk.lock();
        desk.health[self.key].failed(&self.model, failure, asked, ceiling, now);
    }

    /// What the pool calls the model that it was given for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// When the first of the keys that are out of quota for this model has some again.
    pub fn soonest_quota(&self) -> Option<Duration> {
        self.pool.soonest_quota(&self.model, Instant::now())
    }
}

impl PoolKey {
    /// Clients that are not free: leased, or on their way.
    fn in_use(&self) -> usize {
        self.clients.len().saturating_sub(self.take.len())
    }
}

/// How a key stands, for `/status`.
#[derive(Debug)]
pub struct KeyView {
    pub name: String,
    pub slots: usize,
    pub free: usize,
    pub requests: u64,
    pub rests: Vec<RestView>,
    pub last_error: Option<String>,
    pub last_error_at: Option<Instant>,
    /// Attempts in a row that got no proper answer.
    pub misses: u32,
    /// The model and the time so far of each request that has a slot.
    pub busy: Vec<(String, Duration)>,
}

#[derive(Debug)]
pub struct RestView {
    /// `None`: the whole key.
    pub model: Option<String>,
    pub left: Duration,
    pub class: Class,
    pub why: String,
}

impl Pool {
    pub fn new(upstream: &config::Upstream, max_waiting: usize, cool_down_max: Duration) -> Pool {
        let keys: Vec<PoolKey> = upstream
            .keys
            .iter()
            .map(|key| {
                let (put, take) = bounded(upstream.slots);
                let clients: Vec<_> = (0..upstream.slots)
                    .map(|_| {
                        Arc::new(Client {
                            state: Mutex::default(),
                        })
                    })
                    .collect();
                for client in &clients {
                    // The channel has room for every client of the key.
                    let _ = put.try_send(Arc::clone(client));
                }
                PoolKey {
                    name: key.name.clone(),
                    slots: upstream.slots,
                    put,
                    take,
                    clients,
                }
            })
            .collect();
        let desk = Desk {
            health: keys.iter().map(|_| Health::default()).collect(),
            next: 0,
            line: VecDeque::new(),
            last_ticket: 0,
        };
        Pool {
            keys,
            desk: Mutex::new(desk),
            max_waiting: AtomicUsize::new(max_waiting),
            found: (!upstream.slots_set).then(|| upstream.options.found.clone()),
            cool_down_max: Mutex::new(cool_down_max),
            tally: Arc::default(),
            server: down::Server::default(),
            before: Mutex::default(),
        }
    }

    /// Goes on counting where the pool before a reload stands.
    pub fn with_tally(self, tally: &Arc<Tally>) -> Pool {
        Pool {
            tally: Arc::clone(tally),
            ..self
        }
    }

    /// Leases a client, waiting for one up to `limit` and until `cancel` is pulled.
    pub fn lease(
        self: &Arc<Pool>,
        wanted: &Wanted,
        limit: Duration,
        cancel: &Arc<Cancel>,
    ) -> Result<Lease, NoLease> {
        let now = Instant::now();
        let (ticket, hand) = {
            let mut desk = self.desk.lock();
            if let Some(client) = self.pick(&mut desk, wanted, now) {
                drop(desk);
                return Ok(self.lend(client, wanted));
            }
            self.any_usable(&desk, wanted, now)?;
            if desk.line.len() >= self.max_waiting.load(Ordering::Relaxed) {
                return Err(NoLease::LineFull);
            }
            let (put, take) = bounded(1);
            desk.last_ticket += 1;
            let ticket = desk.last_ticket;
            desk.line.push_back(Waiter {
                ticket,
                wanted: wanted.clone(),
                hand: put,
            });
            (ticket, take)
        };
        let place = Arc::new(Place {
            pool: Arc::clone(self),
            ticket,
        });
        cancel.hang_on(place.clone());
        // A hand-over that comes while the wait ends is taken all the same: the place in the line
        // is given up first, and after that nobody can hand anything over.
        let handed = hand.recv_deadline(now + limit);
        cancel.let_go();
        place.leave();
        match handed.or_else(|_| hand.try_recv()) {
            Ok(client) => {
                let lease = self.lend(client, wanted);
                match cancel.cause() {
                    Some(_) => Err(NoLease::Cancelled),
                    None => Ok(lease),
                }
            }
            Err(_) if cancel.cause().is_some() => Err(NoLease::Cancelled),
            Err(_) => {
                // All keys may have gone to rest meanwhile, which is the better reason.
                let desk = self.desk.lock();
                self.any_usable(&desk, wanted, Instant::now())?;
                Err(NoLease::Busy)
            }
        }
    }

    fn lend(self: &Arc<Pool>, (key, client): Granted, wanted: &Wanted) -> Lease {
        let since = Instant::now();
        self.tally.lent();
        {
            let mut state = client.state.lock();
            state.busy = Some((wanted.model.clone(), since));
            state.requests += 1;
        }
        Lease {
            client,
            key,
            pool: Arc::clone(self),
            since,
            model: wanted.model.clone(),
        }
    }

    /// A free client of a key that serves the request, keys in turn, those in trouble last.
    fn pick(&self, desk: &mut Desk, wanted: &Wanted, now: Instant) -> Option<Granted> {
        let count = self.keys.len();
        let first = wanted.preferred.filter(|key| *key < count);
        for in_trouble in [false, true] {
            for step in 0..count {
                let key = (first.unwrap_or(desk.next) + step) % count;
                let health = &desk.health[key];
                if wanted.barred.contains(&key)
                    || health.resting(&wanted.model, now).is_some()
                    || health.is_avoided(now) != in_trouble
                    || self.keys[key].in_use() >= self.most(key)
                {
                    continue;
                }
                if let Ok(client) = self.keys[key].take.try_recv() {
                    desk.next = (key + 1) % count;
                    return Some((key, client));
                }
            }
        }
        None
    }

    /// Slots of a key that may be out at once: no more than the server has.
    fn most(&self, key: usize) -> usize {
        let told = self.found.as_ref().and_then(Found::slots);
        let slots = self.keys[key].slots;
        told.map_or(slots, |told| told.min(slots))
    }

    /// Whether waiting can help: some key would serve the request if it had a free slot.
    fn any_usable(&self, desk: &Desk, wanted: &Wanted, now: Instant) -> Result<(), NoLease> {
        let mut rests: Vec<&Rest> = Vec::new();
        for (key, health) in desk.health.iter().enumerate() {
            if wanted.barred.contains(&key) {
                continue;
            }
            match health.resting(&wanted.model, now) {
                None => return Ok(()),
                Some(rest) => rests.push(rest),
            }
        }
        // One that is only out of quota says more to the caller than one that is refused.
        let told = rests
            .iter()
            .filter(|rest| rest.class == Class::RateLimit)
            .min_by_key(|rest| rest.until)
            .or_else(|| rests.iter().min_by_key(|rest| rest.until));
        Err(match told {
            None => NoLease::Spent,
            Some(rest) => NoLease::Resting {
                class: rest.class,
                soonest: rest.until.checked_duration_since(now),
                why: rest.why.clone(),
                status: rest.status,
            },
        })
    }

    /// When the first of these keys that rests for want of quota will be back.
    pub fn soonest_quota(&self, model: &str, now: Instant) -> Option<Duration> {
        let desk = self.desk.lock();
        desk.health
            .iter()
            .filter_map(|health| health.resting(model, now))
            .filter(|rest| rest.class == Class::RateLimit)
            .map(|rest| rest.until.saturating_duration_since(now))
            .min()
    }

    fn give_back(&self, granted: Granted) {
        let mut desk = self.desk.lock();
        self.offer(&mut desk, granted, Instant::now());
    }

    /// To the first in the line whom it serves, else to the free ones.
    fn offer(&self, desk: &mut Desk, (key, mut client): Granted, now: Instant) {
        let mut at = 0;
        // This one is not among the free ones yet. More may be out than the server has slots, when
        // it has told of them only now.
        if self.keys[key].in_use() > self.most(key) {
            at = desk.line.len();
        }
        while at < desk.line.len() {
            let wanted = &desk.line[at].wanted;
            let serves = !wanted.barred.contains(&key)
                && desk.health[key].resting(&wanted.model, now).is_none();
            if !serves {
                at += 1;
                continue;
            }
            let Some(waiter) = desk.line.remove(at) else {
                break;
            };
            match waiter.hand.try_send((key, client)) {
                Ok(()) => return,
                // The waiter is gone; the next one, then.
                Err(refused) => client = refused.into_inner().1,
            }
        }
        // The channel has room for every client of the key.
        let _ = self.keys[key].put.try_send(client);
    }

    /// Hands the clients of keys whose rest is over to those who wait. For the timer thread.
    pub fn tick(&self, now: Instant) {
        let before = self.before.lock().upgrade();
        if let Some(before) = before {
            before.tick(now);
        }
        let mut desk = self.desk.lock();
        if desk.line.is_empty() {
            return;
        }
        for (place, key) in self.keys.iter().enumerate() {
            for _ in 0..key.take.len() {
                if let Ok(client) = key.take.try_recv() {
                    self.offer(&mut desk, (place, client), now);
                }
            }
        }
        // Those whom no key serves any more need not wait for the end of their time.
        let hopeless: Vec<u64> = desk
            .line
            .iter()
            .filter(|waiter| self.any_usable(&desk, &waiter.wanted, now).is_err())
            .map(|waiter| waiter.ticket)
            .collect();
        desk.line
            .retain(|waiter| !hopeless.contains(&waiter.ticket));
    }

    /// Some key would take a request for `model` now.
    pub fn is_usable(&self, model: &str, now: Instant) -> bool {
        let wanted = Wanted {
            model: model.to_owned(),
            ..Wanted::default()
        };
        self.any_usable(&self.desk.lock(), &wanted, now).is_ok()
    }

    pub fn waiting(&self) -> usize {
        self.desk.lock().line.len()
    }

    pub fn view(&self, now: Instant) -> Vec<KeyView> {
        let desk = self.desk.lock();
        self.keys
            .iter()
            .zip(&desk.health)
            .enumerate()
            .map(|(at, (key, health))| KeyView {
                name: key.name.clone(),
                slots: self.most(at),
                free: self.most(at).saturating_sub(key.in_use()),
                requests: key
                    .clients
                    .iter()
                    .map(|client| client.state.lock().requests)
                    .sum(),
                rests: health
                    .rests(now)
                    .map(|(model, rest)| RestView {
                        model: model.map(str::to_owned),
                        left: rest.until.saturating_duration_since(now),
                        class: rest.class,
                        why: rest.why.clone(),
                    })
                    .collect(),
                last_error: health.last_error.clone(),
                last_error_at: health.last_error_at,
                misses: health.misses,
                busy: key
                    .clients
                    .iter()
                    .filter_map(|client| client.state.lock().busy.clone())
                    .map(|(model, since)| (model, now.saturating_duration_since(since)))
                    .collect(),
            })
            .collect()
    }

    /// The server is well again: what its keys were avoided for is over.
    pub fn recovered(&self) {
        self.server.answered();
        let mut desk = self.desk.lock();
        for health in &mut desk.health {
            health.recovered();
        }
        drop(desk);
        self.tick(Instant::now());
    }

    /// Ends every rest.
    pub fn reset(&self) {
        self.server.answered();
        let mut desk = self.desk.lock();
        for health in &mut desk.health {
            *health = Health::default();
        }
        drop(desk);
        self.tick(Instant::now());
    }

    /// Goes on with a key of the pool before a reload: with what is known of it and, where it is
    /// the same number of them, with its slots, of which running requests have some.
    pub fn go_on(&mut self, key: usize, before: &Arc<Pool>, key_before: usize, with_slots: bool) {
        self.desk.get_mut().health[key] = before.desk.lock().health[key_before].clone();
        let old = &before.keys[key_before];
        let new = &mut self.keys[key];
        if with_slots && old.slots == new.slots {
            new.put = old.put.clone();
            new.take = old.take.clone();
            new.clients = old.clients.clone();
            *self.before.get_mut() = Arc::downgrade(before);
        }
    }

    /// What may change without any of the keys.
    pub fn set_bounds(&self, max_waiting: usize, cool_down_max: Duration) {
        self.max_waiting.store(max_waiting, Ordering::Relaxed);
        *self.cool_down_max.lock() = cool_down_max;
    }
}

/// A place in the line.
struct Place {
    pool: Arc<Pool>,
    ticket: u64,
}

impl Place {
    fn leave(&self) {
        let mut desk = self.pool.desk.lock();
        // Dropping the waiter closes its channel, which ends the wait.
        desk.line.retain(|waiter| waiter.ticket != self.ticket);
    }
}

impl Wait for Place {
    fn end(&self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;

//! `Lanes`: how many requests of one connection wait for their answers.
//!
//! The HTTP server reads on while requests wait, and its queue has no bound. So whoever sends
//! request upon request and does not wait for answers is stopped after a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Requests that may come on one connection without a moment in which all before are answered. Fewer
/// than there are workers by default, since each may have one waiting for its turn.
const MOST: u32 = 32;

#[derive(Default)]
pub struct Lanes {
    /// Connections with requests in the works.
    open: Mutex<HashMap<SocketAddr, Lane>>,
    /// Connections that are told to go.
    barred: Mutex<HashMap<SocketAddr, Barred>>,
}

struct Barred {
    /// `clock::now` of the moment from which the HTTP server can have nothing more of it.
    until: u64,
    /// Our side of it has ended, so one that has not is another connection.
    told: bool,
}

#[derive(Default)]
struct Lane {
    /// Requests whose answers are not out.
    open: u32,
    /// Requests since there was none.
    row: u32,
    /// One too many came.
    cut: bool,
}

/// Why a request has no place.
#[derive(Debug, PartialEq, Eq)]
pub enum TooMany {
    /// It is the first that is too many: the connection is to be cut.
    Now,
    /// That was said before.
    Still,
    /// The connection was told to go, or one before it from the same port.
    Barred,
}

/// A request's place on its connection. Dropping it says that the answer is out.
pub struct Place {
    lanes: Arc<Lanes>,
    peer: SocketAddr,
}

impl Lanes {
    /// A place for the next request.
    pub fn enter(self: &Arc<Lanes>, peer: SocketAddr) -> Result<Place, TooMany> {
        if self.barred.lock().contains_key(&peer) {
            return Err(TooMany::Barred);
        }
        let mut lanes = self.open.lock();
        let lane = lanes.entry(peer).or_default();
        if lane.row >= MOST {
            return Err(match std::mem::replace(&mut lane.cut, true) {
                false => TooMany::Now,
                true => TooMany::Still,
            });
        }
        lane.row += 1;
        lane.open += 1;
        Ok(Place {
            lanes: Arc::clone(self),
            peer,
        })
    }

    /// Lets nothing in that comes from `peer`.
    pub fn bar(&self, peer: SocketAddr, until: u64) {
        let told = false;
        self.barred.lock().insert(peer, Barred { until, told });
    }

    /// The same, and our side of the connection has ended.
    pub fn tell(&self, peer: SocketAddr, until: u64) {
        let told = true;
        self.barred.lock().insert(peer, Barred { until, told });
    }

    pub fn is_told(&self, peer: SocketAddr) -> bool {
        let barred = self.barred.lock();
        barred.get(&peer).is_some_and(|barred| barred.told)
    }

    pub fn unbar(&self, peer: SocketAddr) {
        self.barred.lock().remove(&peer);
    }

    /// Forgets connections of which nothing more can come.
    pub fn forget(&self, now: u64) {
        let mut barred = self.barred.lock();
        if !barred.is_empty() {
            barred.retain(|_, barred| barred.until > now);
            if barred.is_empty() {
                // With its room, of which a flood of refusals takes much.
                *barred = HashMap::new();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.lanes.open.lock();
        if let Some(lane) = lanes.get_mut(&self.peer) {
            lane.open -= 1;
            if lane.open == 0 {
                lanes.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_never_wait_are_stopped() {
        let lanes = Arc::new(Lanes::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let other = SocketAddr::from(([127, 0, 0, 1], 2));
        for _ in 0..1_000 {
            assert!(lanes.enter(peer).is_ok(), "one after the other");
        }
        let mut last = lanes.enter(peer);
        for _ in 1..MOST {
            // Never more than two, and never none.
            last = lanes.enter(peer);
            assert!(last.is_ok());
        }
        assert_eq!(lanes.enter(peer).err(), Some(TooMany::Now));
        assert_eq!(lanes.enter(peer).err(), Some(TooMany::Still));
        assert!(lanes.enter(other).is_ok());
        drop(last);
        assert!(lanes.open.lock().is_empty());
        assert!(lanes.enter(peer).is_ok());
    }

    #[test]
    fn a_connection_that_was_told_to_go_stays_out_until_its_time_is_over() {
        let lanes = Arc::new(Lanes::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        lanes.bar(peer, 10);
        lanes.forget(9);
        assert_eq!(lanes.enter(peer).err(), Some(TooMany::Barred));
        lanes.forget(10);
        assert!(lanes.enter(peer).is_ok());
        lanes.bar(peer, 20);
        assert!(!lanes.is_told(peer));
        lanes.tell(peer, 20);
        assert!(lanes.is_told(peer));
        lanes.unbar(peer);
        assert!(lanes.enter(peer).is_ok());
    }
}

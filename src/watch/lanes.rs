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

/// Connections with requests in the works.
#[derive(Default)]
pub struct Lanes(Mutex<HashMap<SocketAddr, Lane>>);

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
}

/// A request's place on its connection. Dropping it says that the answer is out.
pub struct Place {
    lanes: Arc<Lanes>,
    peer: SocketAddr,
}

impl Lanes {
    /// A place for the next request.
    pub fn enter(self: &Arc<Lanes>, peer: SocketAddr) -> Result<Place, TooMany> {
        let mut lanes = self.0.lock();
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
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.lanes.0.lock();
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
        assert!(lanes.0.lock().is_empty());
        assert!(lanes.enter(peer).is_ok());
    }
}

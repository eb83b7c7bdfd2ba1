//! `Lanes`: how many requests of one connection wait for their answers.
//!
//! The HTTP server reads on while requests wait, and its queue has no bound. So whoever sends
//! request upon request and does not wait for answers is stopped after a while: here, where many
//! are in the works at once, and by the timer thread, which compares the bytes that came with those
//! of the requests that have begun, where they pile up in the queue.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Requests that may come on one connection without a moment in which all before are answered. Fewer
/// than there are workers by default, since each may have one waiting for its turn.
const MOST: u32 = 32;

/// Refused connections that are remembered. What follows on more of them is answered to nobody.
const MOST_BARRED: usize = 8_192;

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
    /// Which of the connections that come from the same port after each other.
    number: u64,
}

#[derive(Default)]
struct Lane {
    /// Requests whose answers are not out.
    open: u32,
    /// Requests since there was none.
    row: u32,
    /// One too many came.
    cut: bool,
    begun: Begun,
    /// Its connection was not there on the last look.
    missed: bool,
}

/// What has begun on a connection between two looks of the timer thread.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Bytes of the requests, with a margin for how they were written.
    pub bytes: u64,
    /// There was one whose length nobody knew beforehand.
    pub unsure: bool,
    /// One of them, or one before them, is at work.
    pub at_work: bool,
}

/// How many bytes a request is, from its head's size and its body's declared length; `None` for a
/// body in chunks.
pub fn weight(head: usize, body: Option<u64>) -> Begun {
    // Spaces that the HTTP server took away, and what a request line has besides its target.
    const LINE: u64 = 32;
    let head = head as u64;
    Begun {
        bytes: (head + head / 16 + LINE).saturating_add(body.unwrap_or(0)),
        unsure: body.is_none(),
        at_work: true,
    }
}

/// Why a request has no place.
#[derive(Debug, PartialEq, Eq)]
pub enum TooMany {
    /// It is the first that is too many: the connection is to be cut.
    Now,
    /// That was said before.
    Still,
    /// The connection with this number was told to go: this one, or one before it from its port.
    Barred(u64),
}

/// A request's place on its connection. Dropping it says that the answer is out.
pub struct Place {
    lanes: Arc<Lanes>,
    peer: SocketAddr,
}

impl Lanes {
    /// A place for the next request.
    pub fn enter(self: &Arc<Lanes>, peer: SocketAddr, begun: Begun) -> Result<Place, TooMany> {
        if let Some(barred) = self.barred.lock().get(&peer) {
            return Err(TooMany::Barred(barred.number));
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
        lane.begun.bytes = lane.begun.bytes.saturating_add(begun.bytes);
        lane.begun.unsure |= begun.unsure;
        Ok(Place {
            lanes: Arc::clone(self),
            peer,
        })
    }

    /// Of what has come from `peer` until now, nobody knows how much was one request.
    pub fn mark_unsure(&self, peer: SocketAddr) {
        if let Some(lane) = self.open.lock().get_mut(&peer) {
            lane.begun.unsure = true;
        }
    }

    /// What has begun since the last time on the connections that were `seen` to be open. What has
    /// begun on others, which may have come just now, stays for the next time.
    pub fn begun(&self, seen: &HashSet<SocketAddr>) -> HashMap<SocketAddr, Begun> {
        let mut begun = HashMap::new();
        self.open.lock().retain(|peer, lane| {
            let is_seen = seen.contains(peer);
            if is_seen {
                let at_work = lane.open > 0;
                let taken = std::mem::take(&mut lane.begun);
                begun.insert(*peer, Begun { at_work, ..taken });
            }
            // One that is not there on two looks has left.
            let left = is_seen || std::mem::replace(&mut lane.missed, true);
            lane.missed &= !is_seen;
            lane.open > 0 || !left
        });
        begun
    }

    /// Lets nothing in that comes from `peer`, as far as there is room to remember that.
    pub fn bar(&self, peer: SocketAddr, number: u64, until: u64) {
        let mut barred = self.barred.lock();
        if barred.len() < MOST_BARRED {
            barred.insert(peer, Barred { until, number });
        }
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
                lane.row = 0;
                lane.cut = false;
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
            assert!(
                lanes.enter(peer, weight(40, Some(0))).is_ok(),
                "one after the other"
            );
        }
        let mut last = lanes.enter(peer, weight(40, Some(0)));
        for _ in 1..MOST {
            // Never more than two, and never none.
            last = lanes.enter(peer, weight(40, Some(0)));
            assert!(last.is_ok());
        }
        assert_eq!(
            lanes.enter(peer, weight(40, Some(0))).err(),
            Some(TooMany::Now)
        );
        assert_eq!(
            lanes.enter(peer, weight(40, Some(0))).err(),
            Some(TooMany::Still)
        );
        assert!(lanes.enter(other, weight(40, Some(0))).is_ok());
        drop(last);
        // Its connection was not there on the look, so that it is still to be told.
        assert!(lanes.begun(&HashSet::new()).is_empty());
        let begun = lanes.begun(&HashSet::from([peer]));
        assert!(begun[&peer].bytes > 0 && !begun[&peer].at_work);
        assert!(lanes.begun(&HashSet::from([peer])).is_empty());
        assert_eq!(lanes.open.lock().len(), 0, "the other one has left");
        assert!(lanes.open.lock().is_empty());
        assert!(lanes.enter(peer, weight(40, Some(0))).is_ok());
    }

    #[test]
    fn a_connection_that_was_told_to_go_stays_out_until_its_time_is_over() {
        let lanes = Arc::new(Lanes::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        lanes.bar(peer, 7, 10);
        lanes.forget(9);
        assert_eq!(
            lanes.enter(peer, weight(40, Some(0))).err(),
            Some(TooMany::Barred(7))
        );
        lanes.forget(10);
        assert!(lanes.enter(peer, weight(40, Some(0))).is_ok());
        lanes.bar(peer, 8, 20);
        lanes.unbar(peer);
        assert!(lanes.enter(peer, weight(40, Some(0))).is_ok());
        for port in 0..=u16::MAX {
            lanes.bar(SocketAddr::from(([127, 0, 0, 1], port)), 9, 30);
        }
        assert_eq!(lanes.barred.lock().len(), MOST_BARRED);
    }
}

//! A model of the line and its hand-over, walked through in every order.
//!
//! It mirrors `Pool::lease`, `give_back`, `offer`, `tick` and the part of `Cancel` that ends a wait,
//! with one step for each stretch under a lock. Explored is every interleaving of a few requests,
//! those who cancel them, a key that goes to rest, and the timer thread: no client may be lost or
//! doubled, and nobody may be left waiting. It is a model, not the code itself: whoever changes the
//! order of steps over there changes it here.

use std::collections::HashSet;

/// Requests at once.
const REQUESTS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Begin,
    /// In the line, and about to hang on to the `Cancel`.
    HangOn,
    Wait,
    LetGo,
    Leave,
    Receive,
    Decide,
    Use,
    GiveBack,
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Request {
    at: At,
    has_client: bool,
    /// The channel of one place.
    hand: bool,
    hung_on: bool,
    cancelled: bool,
    /// Its attempt fails and sends the key to rest.
    fails: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Canceller {
    Pull,
    End,
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    free: usize,
    line: Vec<usize>,
    resting: bool,
    requests: Vec<Request>,
    /// One for the first request.
    canceller: Canceller,
}

/// What is explored.
#[derive(Clone, Copy)]
struct Plan {
    clients: usize,
    fails: bool,
    cancels: bool,
    timeouts: bool,
    /// The mistake of looking into the hand before the place in the line is given up.
    mistaken: bool,
}

impl World {
    fn new(plan: Plan) -> World {
        let request = |number: usize| Request {
            at: At::Begin,
            has_client: false,
            hand: false,
            hung_on: false,
            cancelled: false,
            fails: plan.fails && number == 1,
        };
        World {
            free: plan.clients,
            line: Vec::new(),
            resting: false,
            requests: (0..REQUESTS).map(request).collect(),
            canceller: match plan.cancels {
                true => Canceller::Pull,
                false => Canceller::Done,
            },
        }
    }

    /// `Pool::offer`, under the lock.
    fn offer(&mut self) {
        match self.line.first() {
            Some(&first) if !self.resting => {
                self.line.remove(0);
                assert!(!self.requests[first].hand, "two clients in one hand");
                self.requests[first].hand = true;
            }
            _ => self.free += 1,
        }
    }

    fn leave(&mut self, number: usize) {
        self.line.retain(|other| *other != number);
    }

    /// Everything that can happen next.
    fn next(&self, plan: Plan) -> Vec<World> {
        let mut next = Vec::new();
        for number in 0..REQUESTS {
            self.step(number, plan, &mut next);
        }
        let mut then = self.clone();
        match self.canceller {
            Canceller::Pull => {
                then.canceller = Canceller::End;
                then.requests[0].cancelled = true;
                next.push(then);
            }
            Canceller::End => {
                then.canceller = Canceller::Done;
                if self.requests[0].hung_on {
                    then.leave(0);
                }
                next.push(then);
            }
            Canceller::Done => {}
        }
        // The timer thread goes round for ever, and on one of its rounds a rest is over.
        for rest_ends in [false, true] {
            let mut then = self.clone();
            then.resting &= !rest_ends;
            for _ in 0..std::mem::take(&mut then.free) {
                then.offer();
            }
            if then.resting {
                // Nobody serves them any more.
                then.line.clear();
            }
            next.push(then);
        }
        next
    }

    fn step(&self, number: usize, plan: Plan, next: &mut Vec<World>) {
        let mut then = self.clone();
        let me = &self.requests[number];
        let go = |mut then: World, at: At| {
            then.requests[number].at = at;
            then
        };
        let (leave, receive) = match plan.mistaken {
            false => (At::Receive, At::Decide),
            true => (At::Decide, At::Leave),
        };
        match me.at {
            At::Begin if self.resting => next.push(go(then, At::Done)),
            At::Begin if self.free > 0 => {
                then.free -= 1;
                then.requests[number].has_client = true;
                next.push(go(then, At::Use));
            }
            At::Begin => {
                then.line.push(number);
                next.push(go(then, At::HangOn));
            }
            At::HangOn => {
                then.requests[number].hung_on = true;
                if me.cancelled {
                    then.leave(number);
                }
                next.push(go(then, At::Wait));
            }
            At::Wait => {
                if me.hand {
                    then.requests[number].hand = false;
                    then.requests[number].has_client = true;
                    next.push(go(then, At::LetGo));
                } else if plan.timeouts || !self.line.contains(&number) {
                    next.push(go(then, At::LetGo));
                }
            }
            At::LetGo => {
                then.requests[number].hung_on = false;
                next.push(go(
                    then,
                    if plan.mistaken {
                        At::Receive
                    } else {
                        At::Leave
                    },
                ));
            }
            At::Leave => {
                then.leave(number);
                next.push(go(then, leave));
            }
            At::Receive => {
                if me.hand && !me.has_client {
                    then.requests[number].hand = false;
                    then.requests[number].has_client = true;
                }
                next.push(go(then, receive));
            }
            At::Decide => {
                let at = match (me.has_client, me.cancelled) {
                    (true, false) => At::Use,
                    (true, true) => At::GiveBack,
                    (false, _) => At::Done,
                };
                next.push(go(then, at));
            }
            At::Use => {
                then.resting |= me.fails;
                next.push(go(then, At::GiveBack));
            }
            At::GiveBack => {
                then.requests[number].has_client = false;
                then.offer();
                next.push(go(then, At::Done));
            }
            At::Done => {}
        }
    }

    /// What holds at every moment, and at the end.
    fn fault(&self, plan: Plan, ended: bool) -> Option<&'static str> {
        let held = self.requests.iter().map(|request| {
            usize::from(request.has_client) + usize::from(request.hand && request.at != At::Done)
        });
        if self.free + held.sum::<usize>() != plan.clients {
            return Some("a client is lost or doubled");
        }
        let waits = self.requests.iter().any(|request| request.at != At::Done);
        (ended && waits).then_some("a request waits for ever")
    }
}

/// Walks through every order. Gives the number of different moments, or a fault.
fn explore(plan: Plan) -> Result<usize, (&'static str, World)> {
    let mut seen = HashSet::new();
    let mut open = vec![World::new(plan)];
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let next = world.next(plan);
        if let Some(fault) = world.fault(plan, next.iter().all(|then| *then == world)) {
            return Err((fault, world));
        }
        open.extend(next);
    }
    Ok(seen.len())
}

fn plans() -> impl Iterator<Item = Plan> {
    (0..16).map(|bits: usize| Plan {
        clients: 1 + (bits & 1),
        fails: bits & 2 != 0,
        cancels: bits & 4 != 0,
        timeouts: bits & 8 != 0,
        mistaken: false,
    })
}

#[test]
fn in_every_order_no_client_is_lost_and_nobody_waits_for_ever() {
    for plan in plans() {
        let moments = explore(plan).unwrap_or_else(|(fault, world)| panic!("{fault}: {world:?}"));
        assert!(moments > 100, "{moments}");
    }
}

/// The model is able to find what it is there to find.
#[test]
fn looking_into_the_hand_before_leaving_the_line_loses_a_client() {
    let found = plans()
        .filter(|plan| plan.timeouts)
        .filter_map(|plan| {
            explore(Plan {
                mistaken: true,
                ..plan
            })
            .err()
        })
        .any(|(fault, _)| fault == "a client is lost or doubled");
    assert!(found);
}

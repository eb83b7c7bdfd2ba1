use super::*;
use crate::cancel::Cause;
use crate::config::{Key, Upstream};
use crate::provider::Format;
use std::thread;

const LONG: Duration = Duration::from_secs(20);
const CEILING: Duration = Duration::from_secs(300);

fn pool(keys: usize, slots: usize) -> Arc<Pool> {
    let upstream = Upstream {
        keys: (0..keys)
            .map(|n| Key {
                name: format!("u#{n}"),
                secret: None,
            })
            .collect(),
        slots,
        ..Upstream::new("u", Format::OpenAi)
    };
    Arc::new(Pool::new(&upstream, 3, CEILING))
}

fn wanted(barred: &[usize]) -> Wanted {
    Wanted {
        model: "m".into(),
        barred: barred.to_vec(),
        preferred: None,
    }
}

fn lease(pool: &Arc<Pool>, barred: &[usize], limit: Duration) -> Result<Lease, NoLease> {
    pool.lease(&wanted(barred), limit, &Arc::new(Cancel::default()))
}

fn refused(after: Option<u64>) -> Failure {
    Failure::from_status(429, b"{}", after.map(Duration::from_secs))
}

#[test]
fn keys_are_used_in_turn_and_come_back() {
    let pool = pool(2, 2);
    let leases: Vec<_> = (0..4)
        .map(|_| lease(&pool, &[], Duration::ZERO).unwrap())
        .collect();
    let keys: Vec<_> = leases.iter().map(Lease::key).collect();
    assert_eq!(keys, [0, 1, 0, 1]);
    assert_eq!(
        lease(&pool, &[], Duration::ZERO).unwrap_err(),
        NoLease::Busy
    );
    drop(leases);
    let view = pool.view(Instant::now());
    assert_eq!((view[0].free, view[1].free), (2, 2));
    assert_eq!(view[0].requests, 2);
    assert_eq!(
        lease(&pool, &[0, 1], LONG).unwrap_err(),
        NoLease::Spent,
        "nothing to wait for"
    );
}

#[test]
fn a_preferred_key_comes_first_while_it_can() {
    let pool = pool(3, 1);
    let mut wanted = wanted(&[]);
    wanted.preferred = Some(2);
    let cancel = Arc::default();
    let first = pool.lease(&wanted, LONG, &cancel).unwrap();
    let second = pool.lease(&wanted, LONG, &cancel).unwrap();
    assert_eq!((first.key(), second.key()), (2, 0));
}

#[test]
fn a_panic_gives_the_lease_back() {
    let pool = pool(1, 1);
    let inner = Arc::clone(&pool);
    thread::spawn(move || {
        let _lease = lease(&inner, &[], Duration::ZERO).unwrap();
        std::panic::resume_unwind(Box::new("boom"));
    })
    .join()
    .unwrap_err();
    assert_eq!(pool.view(Instant::now())[0].free, 1);
}

#[test]
fn the_line_is_first_come_first_served_and_bounded() {
    let pool = pool(1, 1);
    let held = lease(&pool, &[], Duration::ZERO).unwrap();
    let (done, order) = crossbeam_channel::unbounded();
    let mut waiting = Vec::new();
    for number in 0..3 {
        let (pool, done) = (Arc::clone(&pool), done.clone());
        let before = pool.waiting();
        let again = Arc::clone(&pool);
        waiting.push(thread::spawn(move || {
            let lease = lease(&pool, &[], LONG).unwrap();
            done.send(number).unwrap();
            drop(lease);
        }));
        while again.waiting() == before {
            thread::yield_now();
        }
    }
    assert_eq!(lease(&pool, &[], LONG).unwrap_err(), NoLease::LineFull);
    drop(held);
    let seen: Vec<_> = (0..3).map(|_| order.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(seen, [0, 1, 2]);
    for thread in waiting {
        thread.join().unwrap();
    }
    assert_eq!(pool.view(Instant::now())[0].free, 1);
}

#[test]
fn a_pull_ends_the_wait_in_the_line_and_leaves_nothing_behind() {
    let pool = pool(1, 1);
    let _held = lease(&pool, &[], Duration::ZERO).unwrap();
    let cancel = Arc::new(Cancel::default());
    let waiting = {
        let (pool, cancel) = (Arc::clone(&pool), Arc::clone(&cancel));
        thread::spawn(move || pool.lease(&wanted(&[]), LONG, &cancel).unwrap_err())
    };
    while pool.waiting() == 0 {
        thread::yield_now();
    }
    cancel.pull(Cause::CallerGone);
    assert_eq!(waiting.join().unwrap(), NoLease::Cancelled);
    assert_eq!(pool.waiting(), 0);
}

#[test]
fn rests_are_per_key_and_model_and_end() {
    let pool = pool(2, 1);
    let now = Instant::now();
    let first = lease(&pool, &[], Duration::ZERO).unwrap();
    first.failed(&refused(Some(7)), Asked::default(), now);
    drop(first);
    let second = lease(&pool, &[], Duration::ZERO).unwrap();
    assert_eq!(second.key(), 1);
    second.failed(&refused(Some(100_000)), Asked::default(), now);
    drop(second);
    match lease(&pool, &[], LONG).unwrap_err() {
        NoLease::Resting { class, soonest, .. } => {
            assert_eq!(class, Class::RateLimit);
            let soonest = soonest.unwrap().as_secs_f64();
            assert!((6.0..=7.0).contains(&soonest), "{soonest}");
        }
        other => panic!("{other:?}"),
    }
    // Another model is not concerned.
    let other = Wanted {
        model: "other".into(),
        ..Wanted::default()
    };
    drop(pool.lease(&other, Duration::ZERO, &Arc::default()).unwrap());
    // The absurd hint is cut to the ceiling.
    assert!(pool.is_usable("m", now + Duration::from_secs(8)));
    let view = pool.view(now);
    assert_eq!(view[1].rests[0].left, CEILING);
    pool.reset();
    assert!(pool.is_usable("m", now));
}

#[test]
fn rate_limits_without_a_hint_double_once_per_window_and_success_forgets() {
    let mut health = Health::default();
    let start = Instant::now();
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let left = |health: &Health, now: Instant| {
        health
            .resting("m", now)
            .map(|rest| rest.until - now)
            .unwrap_or_default()
    };
    health.failed("m", &refused(None), Asked::default(), CEILING, at(0.0));
    health.failed("m", &refused(None), Asked::default(), CEILING, at(0.5));
    assert_eq!(left(&health, at(0.5)), Duration::from_secs(1));
    health.failed("m", &refused(None), Asked::default(), CEILING, at(2.0));
    assert_eq!(left(&health, at(2.0)), Duration::from_secs(2));
    health.failed("m", &refused(None), Asked::default(), CEILING, at(5.0));
    assert_eq!(left(&health, at(5.0)), Duration::from_secs(4));
    // A success of a request from before the rest proves nothing; one from after it does.
    health.succeeded("m", at(4.0));
    assert_eq!(left(&health, at(5.0)), Duration::from_secs(4));
    health.succeeded("m", at(10.0));
    health.failed("m", &refused(None), Asked::default(), CEILING, at(11.0));
    assert_eq!(left(&health, at(11.0)), Duration::from_secs(1));
    for model in 0..1000 {
        health.failed(
            &model.to_string(),
            &refused(None),
            Asked::default(),
            CEILING,
            at(12.0),
        );
    }
    assert!(health.rests(at(12.0)).count() <= 64);
}

#[test]
fn a_key_in_trouble_is_the_last_choice_but_a_choice() {
    let pool = pool(2, 1);
    let first = lease(&pool, &[], Duration::ZERO).unwrap();
    assert_eq!(first.key(), 0);
    first.failed(
        &Failure::from_status(500, b"", None),
        Asked::default(),
        Instant::now(),
    );
    drop(first);
    let second = lease(&pool, &[], Duration::ZERO).unwrap();
    assert_eq!(second.key(), 1);
    assert_eq!(lease(&pool, &[], Duration::ZERO).unwrap().key(), 0);
    drop(second);
    assert_eq!(lease(&pool, &[], Duration::ZERO).unwrap().key(), 1);
}

#[test]
fn a_key_whose_rest_ends_serves_those_who_wait() {
    let pool = pool(2, 1);
    let now = Instant::now();
    let resting = lease(&pool, &[], Duration::ZERO).unwrap();
    resting.failed(&refused(Some(5)), Asked::default(), now);
    let _busy = lease(&pool, &[0], Duration::ZERO).unwrap();
    drop(resting);
    let waiting = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || lease(&pool, &[], LONG).map(|lease| lease.key()))
    };
    while pool.waiting() == 0 {
        thread::yield_now();
    }
    pool.tick(now);
    assert_eq!(pool.waiting(), 1);
    pool.tick(now + Duration::from_secs(6));
    assert_eq!(waiting.join().unwrap(), Ok(0));
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client)
    }
}

fn failure(status: u16, words: &str) -> Failure {
    let body = serde_json::json!({"error": {"message": words}}).to_string();
    Failure::from_status(status, body.as_bytes(), None)
}

fn asked(request: u64) -> Asked {
    Asked {
        request,
        aside: false,
    }
}

#[test]
fn a_key_that_refuses_three_times_in_a_row_cools_down_and_one_answer_clears_it() {
    let mut health = Health::default();
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let left = |health: &Health, now: Instant| {
        let rest = health.resting("m", now)?;
        assert_eq!((rest.status, &*rest.why), (403, "Forbidden"));
        Some((rest.until - now).as_secs())
    };
    let refused = failure(403, "Forbidden");
    let refuse = |health: &mut Health, now: Instant| {
        health.failed("m", &refused, asked(1), CEILING, now);
    };
    for second in 0..2 {
        refuse(&mut health, at(second));
        assert_eq!(left(&health, at(second)), None);
    }
    refuse(&mut health, at(2));
    assert_eq!(left(&health, at(2)), Some(10));
    // One that was under way meanwhile is no further step.
    refuse(&mut health, at(3));
    assert_eq!(left(&health, at(3)), Some(9));
    refuse(&mut health, at(12));
    assert_eq!(left(&health, at(12)), Some(20));
    let mut now = 32;
    for _ in 0..10 {
        refuse(&mut health, at(now));
        now += left(&health, at(now)).unwrap();
    }
    refuse(&mut health, at(now));
    assert_eq!(left(&health, at(now)), Some(600));
    // Whenever it was asked: an answer shows that the key is not the reason.
    health.succeeded("m", at(0));
    assert_eq!(left(&health, at(now)), None);
    refuse(&mut health, at(now));
    assert_eq!(left(&health, at(now)), None);
}

#[test]
fn a_key_that_worked_and_is_called_bad_is_asked_again_sooner() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let bad = failure(401, "Invalid API key");
    let left = |health: &Health, now: Instant| {
        health
            .resting("any", now)
            .map(|rest| (rest.until - now).as_secs())
    };
    let mut health = Health::default();
    health.failed("m", &bad, asked(1), CEILING, at(0));
    assert_eq!(left(&health, at(0)), Some(600));
    let mut health = Health::default();
    health.succeeded("m", at(0));
    let mut now = 1;
    for wait in [60, 120, 240, 480, 600, 600] {
        health.failed("m", &bad, asked(1), CEILING, at(now));
        assert_eq!(left(&health, at(now)), Some(wait));
        now += wait;
    }
}

#[test]
fn the_same_request_again_does_not_make_a_rate_limit_longer() {
    let mut health = Health::default();
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    for second in [0, 2, 4, 6] {
        health.failed("m", &refused(None), asked(7), CEILING, at(second));
        let rest = health.resting("m", at(second)).unwrap();
        assert_eq!(rest.until - at(second), Duration::from_secs(1));
    }
    health.failed("m", &refused(None), asked(8), CEILING, at(8));
    let rest = health.resting("m", at(8)).unwrap();
    assert_eq!(rest.until - at(8), Duration::from_secs(2));
}

#[test]
fn what_is_not_about_the_key_or_its_model_costs_it_nothing() {
    let now = Instant::now();
    let mut health = Health::default();
    let aside = Asked {
        request: 0,
        aside: true,
    };
    for _ in 0..5 {
        // On routes beside chat nothing counts but words that name the key.
        for other in [failure(403, "Forbidden"), failure(500, "m")] {
            health.failed("m (images)", &other, aside, CEILING, now);
        }
        // Another model than the one that was asked, for a tool say.
        let other = failure(403, "must be verified to use the model `gpt-image-1`");
        assert_eq!(other.class, Class::ModelMissing);
        health.failed("gpt-5 (responses)", &other, asked(1), CEILING, now);
        for request in [failure(402, "fewer max_tokens"), failure(501, "no")] {
            health.failed("m", &request, asked(1), CEILING, now);
        }
    }
    assert_eq!(health.rests(now).count(), 0);
    assert!(!health.is_avoided(now));
    let other = failure(404, "The model `gpt-5-2025-08-07` does not exist");
    health.failed("gpt-5 (responses)", &other, asked(1), CEILING, now);
    assert!(health.resting("gpt-5 (responses)", now).is_some());
    assert!(health.resting("gpt-5", now).is_none());
    health.failed("m", &failure(401, "Invalid API key"), aside, CEILING, now);
    assert!(health.resting("gpt-5", now).is_some());
}

#[test]
fn no_more_slots_are_lent_than_the_server_has() {
    let mut upstream = Upstream::new("up", Format::OpenAi);
    upstream.slots = 4;
    let found = upstream.options.found.clone();
    let pool = Arc::new(Pool::new(&upstream, 3, CEILING));
    let wanted = Wanted::default();
    let cancel = Arc::<Cancel>::default();
    let lease = || pool.lease(&wanted, Duration::ZERO, &cancel);
    let told = |slots| {
        found.set(crate::kind::Facts {
            slots: Some(slots),
            ..Default::default()
        });
    };
    let mut leases: Vec<_> = (0..3).map(|_| lease().unwrap()).collect();
    // It tells of two while three are out already.
    told(2);
    assert_eq!(lease().unwrap_err(), NoLease::Busy);
    let view = &pool.view(Instant::now())[0];
    assert_eq!((view.slots, view.free), (2, 0));
    leases.pop();
    assert_eq!(lease().unwrap_err(), NoLease::Busy);
    // Whoever waits gets the next one that comes back.
    let waiting = std::thread::spawn({
        let (pool, wanted, cancel) = (Arc::clone(&pool), wanted.clone(), Arc::default());
        move || {
            pool.lease(&wanted, Duration::from_secs(60), &cancel)
                .map(drop)
        }
    });
    while pool.waiting() == 0 {
        std::thread::yield_now();
    }
    leases.pop();
    assert_eq!(waiting.join().unwrap(), Ok(()));
    leases.push(lease().unwrap());
    assert_eq!(lease().unwrap_err(), NoLease::Busy);
    // More than the config says are never lent.
    told(9);
    leases.extend((0..2).map(|_| lease().unwrap()));
    assert_eq!(lease().unwrap_err(), NoLease::Busy);
    assert_eq!(pool.view(Instant::now())[0].slots, 4);
}

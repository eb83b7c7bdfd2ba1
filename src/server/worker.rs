//! The workers: each takes one request after the other, inside a fence around panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::error;
use tiny_http::Request;

use super::routes::{self, Endpoint};
use super::{Gateway, State};
use crate::desk::{AtWork, Desk, Job, Phase};
use crate::exchange::Following;
use crate::inbound::{self, Call, Length, Unread};
use crate::record::Record;
use crate::sys::sockets;

/// One worker: takes requests for as long as the process lives.
pub fn work(gateway: &Arc<Gateway>) {
    let desk = gateway.watch.add_desk();
    let mut server = gateway.door.current();
    gateway.crew.rest();
    loop {
        match gateway.crew.stand(|| server.receive()) {
            Ok(request) => {
                take(gateway, request, &desk);
                gateway.crew.rest();
            }
            Err(fault) => server = gateway.door.after(server, fault, gateway),
        }
        // Whoever slept through it finds a new server here.
        server = gateway.door.newest(server);
    }
}

/// Answers one request. Nothing that happens in here ends the worker.
pub fn take(gateway: &Arc<Gateway>, request: Request, desk: &Desk) {
    // Guards answer the caller and clear the desk.
    if catch_unwind(AssertUnwindSafe(|| work_on(gateway, request, desk))).is_err() {
        error!("a panic outside of an answer");
    }
}

fn work_on(gateway: &Arc<Gateway>, request: Request, desk: &Desk) {
    let Some((mut work, following)) = begin(gateway, request, desk) else {
        return;
    };
    // Out here, where a stack that may stand for minutes is still short.
    if let Some(following) = following {
        let (state, job) = (&*work.state, &*work.at_work.job);
        let record = &mut *work.record;
        let fenced = catch_unwind(AssertUnwindSafe(|| {
            following.follow(state, job, record);
            record.spend_rest(&state.limits);
        }));
        work.panicked = fenced.is_err();
    }
    end(gateway, work);
}

/// A request in the works.
struct Work<'g> {
    state: Arc<State>,
    endpoint: Endpoint,
    record: Box<Record>,
    panicked: bool,
    at_work: AtWork<'g>,
}

/// Answers, but for a stream that has begun. `None`: that was no request.
#[inline(never)]
fn begin<'g>(
    gateway: &'g Arc<Gateway>,
    request: Request,
    desk: &'g Desk,
) -> Option<(Work<'g>, Option<Box<Following<'g>>>)> {
    let state = gateway.state();
    let mut job = Job::new(request.remote_addr().copied(), state.config.deadline);
    let weight = inbound::weight(&request);
    if job.peer.is_none() {
        sockets::unix::limit_callers(state.config.body_wait, state.config.write_timeout);
        job.is_of(weight, request.body_length().unwrap_or(0) as u64);
    }
    // Whoever reads the body, or drains what nobody read, is ended when this is over.
    job.enter(Phase::Body, state.config.body_wait);
    let at_work = AtWork::begin(desk, &gateway.watch, job);
    let held = Arc::clone(&at_work.job.held);
    if let Some(peer) = at_work.job.peer {
        match gateway.watch.enter_lane(peer, weight) {
            Some(place) => held.keep(place),
            None => {
                Unread::new(request).let_go();
                return None;
            }
        }
    }
    let max_body = state.config.max_body_bytes;
    let call = match Call::take(request, &gateway.watch, max_body, held) {
        Ok(call) => call,
        Err(misframed) => {
            let mut record = Record::new(misframed.id, "none");
            record.status = misframed.error.status;
            record.error = Some(misframed.error.message);
            gateway.metrics.note(&record, &state.names);
            record.log(state.config.log_format);
            return None;
        }
    };
    let chunked = call.length == Length::Chunked;
    at_work.job.reads_chunks.store(chunked, Ordering::Relaxed);
    let endpoint = routes::endpoint(&call);
    let mut record = Box::new(Record::new(call.id.clone(), endpoint.name()));
    // A panic drops the call or its stream, whose guards answer; what became of it is noted.
    let fenced = catch_unwind(AssertUnwindSafe(|| {
        routes::answer(gateway, &state, endpoint, call, &at_work.job, &mut record)
    }));
    let work = Work {
        state,
        endpoint,
        record,
        panicked: fenced.is_err(),
        at_work,
    };
    Some((work, fenced.ok().flatten()))
}

/// Notes what became of the request.
#[inline(never)]
fn end(gateway: &Arc<Gateway>, work: Work<'_>) {
    let Work {
        state,
        endpoint,
        mut record,
        panicked,
        at_work,
    } = work;
    if record.status == 499 {
        // A caller who did not read in time is still there, with half a chunk. Of one who left, the
        // port may already be another's.
        let known = at_work.job.caller.lock().clone();
        let find = || gateway.watch.find(at_work.job.peer?).map(Arc::new);
        if let Some(caller) = known.or_else(find).filter(|caller| caller.has_unsent()) {
            caller.shut();
        }
    }
    if panicked {
        error!("{}: a panic while answering", record.id);
        record.status = 500;
    }
    #[cfg(debug_assertions)]
    crate::exchange::panic_on_demand(record.id.as_bytes());
    gateway.metrics.note(&record, &state.names);
    if endpoint.is_exchange() {
        gateway.ledger.note(&record, &state.names);
    }
    if endpoint.is_logged() {
        record.log(state.config.log_format);
    }
    if let Some(log) = &state.request_log {
        log.write(&record, &state.masks);
    }
}

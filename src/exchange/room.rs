//! Which targets may take a request that was too long for another one.

use crate::models;
use crate::route::Target;
use crate::server::State;

/// The targets that a request was too long for. Only one that may have more room is asked then.
#[derive(Default)]
pub struct TooLong<'t> {
    targets: Vec<&'t Target>,
    /// The longest context of them that is known.
    most: Option<u64>,
}

impl<'t> TooLong<'t> {
    /// The request was too long for this one.
    pub fn note(&mut self, target: &'t Target, state: &State) {
        self.targets.push(target);
        self.most = self.most.max(room(target, state));
    }

    /// It will be too long for this one as well.
    pub fn rules_out(&self, target: &Target, state: &State) -> bool {
        let is_the_same =
            |known: &&Target| (known.upstream, &known.model) == (target.upstream, &target.model);
        self.targets.iter().any(is_the_same)
            || (self.most.zip(room(target, state))).is_some_and(|(most, room)| room <= most)
    }
}

fn room(target: &Target, state: &State) -> Option<u64> {
    let upstream = &state.config.upstreams[target.upstream];
    models::context_length(upstream, &target.model)
}

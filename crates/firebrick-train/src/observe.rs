//! How a run tells what it is doing.

use crate::error::ObserverError;

/// Metrics of one step, in order: name and value.
pub type Values = Vec<(String, f64)>;

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A loop begins, or goes on, at this step: what was observed beyond it will happen again.
    Begin {
        /// What is counted, for instance `tokens`.
        unit: &'static str,
        /// Steps in all.
        steps: u64,
        /// Steps done already.
        done: u64,
    },
    /// A step is done.
    Step {
        /// Steps done, this one included.
        done: u64,
        /// Samples seen, those of this step included.
        samples: u64,
        /// Units (tokens, pairs …) in this step.
        units: u64,
        /// What was measured; names as the field has them.
        values: &'a Values,
    },
}

/// Something that watches a run.
pub trait Observer {
    /// Sees an event.
    ///
    /// # Errors
    /// If what it writes cannot be written; the run then stops.
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError>;
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _event: Event<'_>) -> Result<(), ObserverError> {
        Ok(())
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        (**self).on(event)
    }
}

//! What travels together through every training loop.

use firebrick_tensor::Workers;
use firebrick_types::Seed;

use crate::learner::{NonFinite, Trained};
use crate::{Checkpoint, Checkpoints, Error, Event, Observer, ObserverError, Silent, Values};

/// What a training loop over a model `M` is run with: none of it but the seed bears on results.
///
/// ```
/// use firebrick_train::Run;
/// use firebrick_types::Seed;
///
/// // Silent, without checkpoints, on all cores; every 100 samples the model is measured.
/// let run: Run<'_, f32> = Run::new(Seed::new(17)).probe(100, |model: &f32| Ok(vec![("weight".to_owned(), f64::from(*model))]));
/// # let _ = run;
/// ```
pub struct Run<'a, M> {
    /// Where randomness comes from.
    pub seed: Seed,
    /// Where the loop's state is kept, and from where it goes on.
    pub checkpoints: Option<Checkpoints>,
    /// Who watches.
    pub observer: Box<dyn Observer + 'a>,
    /// Who computes.
    pub workers: Workers,
    /// What is measured of the model while it learns.
    pub probe: Option<Probe<'a, M>>,
}

/// Measures a model.
type Measure<'a, M> = dyn FnMut(&M) -> Result<Values, ObserverError> + 'a;

/// Something that is measured of a model while it learns.
pub struct Probe<'a, M> {
    /// Samples between two measurements; the last step is measured too.
    pub every: u64,
    /// Measures the model; what it gives stands among the metrics of the step.
    pub measure: Box<Measure<'a, M>>,
}

impl<'a, M> Run<'a, M> {
    /// A run that nobody watches, without checkpoints, on all cores.
    pub fn new(seed: Seed) -> Self {
        Self { seed, checkpoints: None, observer: Box::new(Silent), workers: Workers::default(), probe: None }
    }

    /// Watched by this observer.
    #[must_use]
    pub fn observer(self, observer: impl Observer + 'a) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// With checkpoints; it goes on from the newest one, to the bits it would have reached without interruption.
    #[must_use]
    pub fn checkpoints(self, checkpoints: Checkpoints) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// Computed by these workers.
    #[must_use]
    pub fn workers(self, workers: Workers) -> Self {
        Self { workers, ..self }
    }

    /// Measuring the model after every so many samples.
    #[must_use]
    pub fn probe(self, every: u64, measure: impl FnMut(&M) -> Result<Values, ObserverError> + 'a) -> Self {
        Self { probe: Some(Probe { every, measure: Box::new(measure) }), ..self }
    }

    /// What is trained as the newest checkpoint has it, or as it is; and the steps that were done.
    ///
    /// # Errors
    /// If a checkpoint is damaged or another loop's, or the observer fails.
    pub fn begin<T: Trained>(&mut self, trained: T, unit: &'static str, steps: u64) -> Result<(T, u64), Error> {
        let newest = self.checkpoints.as_ref().map_or(Ok(None), Checkpoints::load::<Vec<u64>>)?;
        let (trained, done) = match newest {
            None => (trained, 0),
            Some(checkpoint) => {
                let damaged = |error: firebrick_tensor::ParametersError| Error::Damaged {
                    path: self.newest().unwrap_or_default(),
                    reason: error.to_string(),
                };
                (trained.restore(&checkpoint.tensors, &checkpoint.counters).map_err(damaged)?, checkpoint.steps)
            }
        };
        self.observer.on(Event::Begin { unit, steps, done })?;
        Ok((trained, done))
    }

    /// Tells of a step, measures the model if that is due, and keeps what is trained if that is due.
    ///
    /// # Errors
    /// If the observer or the probe fails, or a checkpoint cannot be written.
    pub fn end_step<T: Trained>(
        &mut self,
        step: &Step,
        mut values: Values,
        model: &M,
        trained: &T,
    ) -> Result<(), Error> {
        if let Some(Probe { every, measure }) = &mut self.probe {
            let before = step.samples - step.new_samples;
            let every = (*every).max(1);
            if step.samples / every > before / every || step.done == step.steps {
                values.extend(measure(model)?);
            }
        }
        let Step { done, samples, units, .. } = *step;
        self.observer.on(Event::Step { done, samples, units, values: &values })?;
        if let Some(checkpoints) = self.checkpoints.as_mut().filter(|checkpoints| checkpoints.due()) {
            let (tensors, counters) = trained.state();
            checkpoints.save(&Checkpoint { steps: done, tensors, counters })?;
        }
        Ok(())
    }

    /// The error of a loss or gradient of a step that is not finite.
    pub fn non_finite(&self, NonFinite { what, value }: NonFinite, step: u64, samples: u64) -> Error {
        Error::NonFinite { what, value, step, samples, checkpoint: self.newest() }
    }

    fn newest(&self) -> Option<std::path::PathBuf> {
        self.checkpoints.as_ref().and_then(Checkpoints::newest)
    }
}

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done, this one included.
    pub done: u64,
    /// Steps in all.
    pub steps: u64,
    /// Samples seen, those of this step included.
    pub samples: u64,
    /// Samples of this step.
    pub new_samples: u64,
    /// What is counted of it, for instance tokens.
    pub units: u64,
}

//! What is kept of a stage while it works: `metrics.jsonl`, TensorBoard events, and how fast it went.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use firebrick_report::metrics::MetricsLog;
use firebrick_report::tensorboard::EventWriter;
use firebrick_train::{Event, Observer, ObserverError};
use serde::{Deserialize, Serialize};

/// Keeps the metrics of one stage in its working folder, and hands every event on.
pub struct Recorder {
    work: PathBuf,
    next: Box<dyn Observer>,
    log: Option<MetricsLog>,
    events: Option<EventWriter>,
    unit: &'static str,
    steps: u64,
    units: u64,
    began: Instant,
}

/// How fast a stage went, in the process that finished it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speed {
    /// What is counted, for instance `tokens`.
    pub unit: String,
    /// How many.
    pub units: u64,
    /// In how much time.
    pub seconds: f64,
}

impl Speed {
    const FILE: &str = "speed.json";

    /// What a finished stage left in its working folder, if it counts anything.
    pub fn read(work: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(work.join(Self::FILE)).ok()?).ok()
    }

    fn write(&self, work: &Path) -> std::io::Result<()> {
        std::fs::write(work.join(Self::FILE), serde_json::to_vec(self)?)
    }

    /// Units a second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

impl Recorder {
    /// Keeps what a stage does in its working folder, and hands it on to another observer.
    pub fn new(work: &Path, next: Box<dyn Observer>) -> Self {
        let (log, events) = (None, None);
        Self { work: work.to_owned(), next, log, events, unit: "", steps: 0, units: 0, began: Instant::now() }
    }

    /// The file of metrics in a working folder.
    pub fn metrics(work: &Path) -> PathBuf {
        work.join("metrics.jsonl")
    }
}

impl Observer for Recorder {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { unit, steps, done } => {
                (self.unit, self.steps, self.began) = (unit, steps, Instant::now());
                self.log = Some(MetricsLog::resume(Self::metrics(&self.work), done)?);
                self.events = Some(EventWriter::resume(&self.work, done)?);
            }
            Event::Step { done, samples, units, values } => {
                self.units += units;
                let values = values.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>();
                if let Some(log) = &mut self.log {
                    log.append(done, samples, &values)?;
                }
                if let Some(events) = &mut self.events {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                    events.scalars(done, now, &values)?;
                }
                if done == self.steps {
                    let seconds = self.began.elapsed().as_secs_f64();
                    Speed { unit: self.unit.to_owned(), units: self.units, seconds }.write(&self.work)?;
                }
            }
        }
        self.next.on(event)
    }
}

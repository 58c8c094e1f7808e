//! What a person sees of long work, and what is kept of it: a bar, `metrics.jsonl`, TensorBoard events.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firebrick_report::metrics::MetricsLog;
use firebrick_report::tensorboard::EventWriter;
use firebrick_train::{Event, Observer, ObserverError};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::env::Voice;
use crate::say::remark;

/// Between two plain lines where there is no terminal.
const SPARSE: Duration = Duration::from_secs(10);

/// Shows and keeps the metrics of one stage.
pub(crate) struct Progress<'a> {
    work: &'a Path,
    stage: &'a str,
    voice: Voice,
    bar: Option<ProgressBar>,
    log: Option<MetricsLog>,
    events: Option<EventWriter>,
    unit: &'static str,
    steps: u64,
    units: u64,
    began: Instant,
    told: Instant,
}

/// How fast a stage went, in the process that finished it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Speed {
    pub(crate) unit: String,
    pub(crate) units: u64,
    pub(crate) seconds: f64,
}

impl Speed {
    const FILE: &str = "speed.json";

    /// What a finished stage left in its working folder, if it counts anything.
    pub(crate) fn read(work: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(work.join(Self::FILE)).ok()?).ok()
    }

    fn write(&self, work: &Path) -> std::io::Result<()> {
        std::fs::write(work.join(Self::FILE), serde_json::to_vec(self)?)
    }

    /// Units a second.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

impl<'a> Progress<'a> {
    pub(crate) fn new(work: &'a Path, stage: &'a str, voice: Voice) -> Self {
        let now = Instant::now();
        Self {
            work,
            stage,
            voice,
            bar: None,
            log: None,
            events: None,
            unit: "",
            steps: 0,
            units: 0,
            began: now,
            told: now,
        }
    }

    /// The file of metrics of a stage.
    pub(crate) fn metrics(work: &Path) -> std::path::PathBuf {
        work.join("metrics.jsonl")
    }

    fn tell(&mut self, done: u64, summary: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(summary.to_owned());
        }
        let due = self.voice == Voice::Verbose
            || (self.bar.is_none()
                && self.voice == Voice::Normal
                && (self.told.elapsed() >= SPARSE || done == self.steps));
        if due {
            self.told = Instant::now();
            let rate = self.units as f64 / self.began.elapsed().as_secs_f64();
            let line = format!("  {}: step {done} of {}, {rate:.0} {}/s, {summary}", self.stage, self.steps, self.unit);
            match &self.bar {
                Some(bar) => bar.println(line),
                None => remark(line),
            }
        }
    }
}

impl Observer for Progress<'_> {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { unit, steps, done } => {
                (self.unit, self.steps) = (unit, steps);
                self.began = Instant::now();
                self.log = Some(MetricsLog::resume(Self::metrics(self.work), done)?);
                self.events = Some(EventWriter::resume(self.work, done)?);
                if self.voice > Voice::Quiet && std::io::stderr().is_terminal() {
                    let style = "  {prefix:12} {bar:30} {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}";
                    let style = ProgressStyle::with_template(style).expect("the template is well formed");
                    let bar = ProgressBar::new(steps).with_style(style).with_prefix(self.stage.to_owned());
                    self.bar = Some(bar.with_position(done));
                }
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
                let shown = ["loss", "accuracy", "objective/scores", "objective/kl", "response_length"];
                let summary = values
                    .iter()
                    .filter(|(name, _)| shown.contains(name))
                    .map(|(name, value)| format!("{name} {value:.3}"))
                    .collect::<Vec<_>>();
                let rate = self.units as f64 / self.began.elapsed().as_secs_f64();
                let summary = match &self.bar {
                    Some(_) => format!("{rate:.0} {}/s  {}", self.unit, summary.join("  ")),
                    None => summary.join(", "),
                };
                self.tell(done, &summary);
                if done == self.steps {
                    let seconds = self.began.elapsed().as_secs_f64();
                    Speed { unit: self.unit.to_owned(), units: self.units, seconds }.write(self.work)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! What a person sees of long work: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use firebrick_train::{Event, Observer, ObserverError};
use indicatif::{ProgressBar, ProgressStyle};

use crate::log::{BARS, Voice};
use crate::say::remark;

/// Between two plain lines where there is no terminal.
const SPARSE: Duration = Duration::from_secs(10);

/// Shows how far a stage is.
pub(crate) struct Progress {
    stage: String,
    voice: Voice,
    bar: Option<ProgressBar>,
    unit: &'static str,
    steps: u64,
    units: u64,
    began: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(stage: &str, voice: Voice) -> Self {
        let now = Instant::now();
        Self { stage: stage.to_owned(), voice, bar: None, unit: "", steps: 0, units: 0, began: now, told: now }
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
            let comma = if summary.is_empty() { "" } else { ", " };
            let Self { stage, steps, unit, .. } = self;
            let line = format!("  {stage}: step {done} of {steps}, {rate:.0} {unit}/s{comma}{summary}");
            match &self.bar {
                Some(bar) => bar.println(line),
                None => remark(line),
            }
        }
    }
}

impl Observer for Progress {
    fn on(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::Begin { unit, steps, done } => {
                (self.unit, self.steps) = (unit, steps);
                self.began = Instant::now();
                if self.voice > Voice::Quiet && std::io::stderr().is_terminal() {
                    let style = "  {prefix:12} {bar:30} {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}";
                    let style = ProgressStyle::with_template(style).expect("the template is well formed");
                    let bar = ProgressBar::new(steps).with_style(style).with_prefix(self.stage.clone());
                    self.bar = Some(BARS.add(bar.with_position(done)));
                }
            }
            Event::Step { done, units, values, .. } => {
                self.units += units;
                let training = ["loss", "accuracy", "objective/scores", "objective/kl", "response_length"];
                let held_out = ["eval_loss", "eval_accuracy", "eval/scores", "eval/test_scores"];
                let shown = [&training[..], &held_out[..]].concat();
                let summary = values
                    .iter()
                    .filter(|(name, _)| shown.contains(&name.as_str()))
                    .map(|(name, value)| format!("{name} {value:.3}"))
                    .collect::<Vec<_>>();
                let rate = self.units as f64 / self.began.elapsed().as_secs_f64();
                let summary = match &self.bar {
                    Some(_) => format!("{rate:.0} {}/s  {}", self.unit, summary.join("  ")),
                    None => summary.join(", "),
                };
                self.tell(done, &summary);
            }
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            BARS.remove(bar);
        }
    }
}

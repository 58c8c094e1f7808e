//! How much of the cores others take while something is measured.

use std::fs;
use std::time::Instant;

use crate::machine::allowed_cores;

/// Ticks of the processor's accounts in a second.
const TICKS: f64 = 100.0;

/// The accounts of some cores and of one process, at one time.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    at: Instant,
    cores: usize,
    /// Seconds that the cores have worked.
    busy: f64,
    /// Seconds that the process has.
    own: f64,
}

impl Account {
    /// The accounts now, of the first so many cores; none where the system keeps none.
    pub fn now(cores: usize, process: u32) -> Option<Self> {
        let allowed = allowed_cores()?;
        let busy = busy(&fs::read_to_string("/proc/stat").ok()?, allowed.get(..cores)?);
        let own = own(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
        Some(Self { at: Instant::now(), cores, busy, own })
    }

    /// The seconds of work of the process since an earlier account.
    pub fn worked_since(&self, before: &Self) -> f64 {
        self.own - before.own
    }

    /// The share of the cores' time that others took since an earlier account.
    pub fn taken_since(&self, before: &Self) -> f64 {
        let taken = (self.busy - before.busy) - (self.own - before.own);
        let whole = (self.at - before.at).as_secs_f64() * self.cores as f64;
        (taken / whole.max(1e-9)).clamp(0.0, 1.0)
    }
}

/// Seconds that these cores have worked, in `/proc/stat`.
fn busy(stat: &str, cores: &[usize]) -> f64 {
    let of = |core: &usize| {
        let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} "))).unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let ticks = line.split_whitespace().map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).collect::<Vec<_>>();
        [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| ticks.get(index)).sum::<f64>()
    };
    cores.iter().map(of).sum::<f64>() / TICKS
}

/// Seconds that a process has worked, in its `/proc/…/stat`.
fn own(stat: &str) -> Option<f64> {
    // Its name stands in parentheses and may hold anything.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().collect::<Vec<_>>();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn busy_time_leaves_out_what_is_idle() {
        let stat = "cpu  9 9 9 9\ncpu0 100 10 40 999 888 1 2 7 0 0\ncpu1 200 0 0 5 5 0 0 0 0 0\n";
        assert!((busy(stat, &[0]) - 1.6).abs() < 1e-9);
        assert!((busy(stat, &[0, 1]) - 3.6).abs() < 1e-9);
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20";
        assert_eq!(own(stat), Some(3.0));
    }

    /// Two cores for a second: 1.5 seconds of work, of which the process did 1.
    #[test]
    fn what_a_process_did_itself_is_not_taken() {
        let before = Account { at: Instant::now(), cores: 2, busy: 5.0, own: 1.0 };
        let after = Account { at: before.at + Duration::from_secs(1), busy: 6.5, own: 2.0, ..before };
        assert!((after.taken_since(&before) - 0.25).abs() < 1e-9);
    }
}

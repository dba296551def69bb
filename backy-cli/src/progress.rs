//! Progress of an operation: bars on a terminal, else a line now and then.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chunkstore::progress::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::human;
use crate::ui::Ui;

/// Time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Time between two pictures of a bar that does not move.
const TICK: Duration = Duration::from_millis(250);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Bars,
    Lines,
    Silent,
}

/// Receives the progress of one operation.
#[derive(Debug)]
pub(crate) struct ProgressReporter<'a> {
    ui: &'a Ui,
    style: Style,
    current: Mutex<Option<Current>>,
}

/// The phase that is going on.
#[derive(Debug)]
struct Current {
    phase: Phase,
    total: Option<u64>,
    done: u64,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl<'a> ProgressReporter<'a> {
    pub(crate) const fn new(ui: &'a Ui, style: Style) -> Self {
        Self { ui, style, current: Mutex::new(None) }
    }

    fn with_current<T>(&self, use_it: impl FnOnce(&mut Option<Current>) -> T) -> T {
        // A panic elsewhere leaves numbers that are at worst out of date.
        use_it(&mut self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Progress for ProgressReporter<'_> {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.end();
        let began = Instant::now();
        let bar = (self.style == Style::Bars).then(|| bar(phase, total));
        self.with_current(|current| {
            *current = Some(Current { phase, total, done: 0, began, told: began, bar });
        });
    }

    fn advance(&self, count: u64) {
        let line = self.with_current(|current| {
            let current = current.as_mut()?;
            current.done = current.done.saturating_add(count);
            if let Some(bar) = &current.bar {
                bar.inc(count);
            }
            let is_due = self.style == Style::Lines && LINE_INTERVAL <= current.told.elapsed();
            is_due.then(|| {
                current.told = Instant::now();
                current.line()
            })
        });
        if let Some(line) = line {
            self.ui.progress_line(&line);
        }
    }

    fn end(&self) {
        if let Some(Current { bar: Some(bar), .. }) = self.with_current(Option::take) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        let bar = self.with_current(|current| current.as_ref().and_then(|now| now.bar.clone()));
        match bar {
            Some(bar) => bar.suspend(|| self.ui.note(message)),
            None => self.ui.note(message),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.ui.stop_wanted()
    }
}

impl Drop for ProgressReporter<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Current {
    fn line(&self) -> String {
        let text =
            |number| if in_bytes(self.phase) { human::size(number) } else { format!("{number}") };
        let milliseconds = self.began.elapsed().as_millis().max(1);
        let rate = u64::try_from(u128::from(self.done) * 1000 / milliseconds).unwrap_or(u64::MAX);
        let name = name(self.phase);
        match self.total {
            Some(total) if self.done <= total && 0 < rate => {
                let left = human::duration(((total - self.done) / rate).saturating_mul(1000));
                let (done, total, rate) = (text(self.done), text(total), text(rate));
                format!("{name}: {done} of {total}, {rate}/s, {left} left")
            }
            _ => format!("{name}: {}, {}/s", text(self.done), text(rate)),
        }
    }
}

const fn in_bytes(phase: Phase) -> bool {
    !matches!(phase, Phase::Sweep | Phase::RebuildIndex | Phase::Thin)
}

const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Backup => "backup",
        Phase::Sample => "comparing a sample",
        Phase::Restore => "restore",
        Phase::ReadBack => "reading back",
        Phase::Verify => "verify",
        Phase::Diff => "comparing",
        Phase::Mark => "finding what revisions need",
        Phase::Repack => "repacking",
        Phase::Thin => "thinning",
        Phase::Sweep => "giving space back",
        Phase::RebuildIndex => "rebuilding the index",
        _ => "working",
    }
}

fn bar(phase: Phase, total: Option<u64>) -> ProgressBar {
    let template = match (in_bytes(phase), total) {
        (true, Some(_)) => {
            "{msg} [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
        }
        (true, None) => "{msg} {spinner} {binary_bytes}, {binary_bytes_per_sec}",
        (false, Some(_)) => "{msg} [{wide_bar}] {pos} of {len}, {per_sec}, {eta} left",
        (false, None) => "{msg} {spinner} {pos}, {per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates are well formed");
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name(phase));
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        for phase in [Phase::Backup, Phase::Sweep] {
            for total in [None, Some(1)] {
                bar(phase, total).finish_and_clear();
            }
        }
    }

    #[test]
    fn line_tells_amount_rate_and_rest() {
        let began = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let current = |total, done| Current {
            phase: Phase::Backup,
            total,
            done,
            began,
            told: began,
            bar: None,
        };
        let line = current(Some(200 << 20), 100 << 20).line();
        assert!(line.starts_with("backup: 100.0 MiB of 200.0 MiB, "), "{line}");
        assert!(line.ends_with(" s left"), "{line}");
        assert!(current(None, 5).line().starts_with("backup: 5 B, "));
        assert!(current(Some(1), 5).line().starts_with("backup: 5 B, "));
        assert!(current(Some(0), 0).line().starts_with("backup: 0 B, "));
    }
}
